//! Copies between the host and a device through pinned memory: pieces go through a ring of slots, so that a write returns once
//! the last piece is in a slot, whatever the stream still has to do, and pieces of a read are copied on while others come.

use crate::error::Result;

/// Bytes of a slot, and slots: of copies of at most [`SMALL`] bytes, and of larger ones.
const SMALL: (usize, usize) = (64 << 10, 64);
const LARGE: (usize, usize) = (8 << 20, 4);

/// What copies, in order, and after all that was asked for before.
pub trait Engine {
    /// A point in the order of its work.
    type Event;
    /// Memory that it reads and writes by itself.
    type Pinned: AsMut<[u8]>;

    /// Pinned memory of this size.
    fn pinned(&self, bytes: usize) -> Result<Self::Pinned>;

    /// Copies `from` to the device.
    ///
    /// # Safety
    /// As many bytes stand at that address, and `from` neither changes nor ends before the copy is done.
    unsafe fn send(&self, address: u64, from: &[u8]) -> Result<()>;

    /// Copies from the device to `to`.
    ///
    /// # Safety
    /// As many bytes stand at that address, and nobody touches `to` before the copy is done.
    unsafe fn receive(&self, to: &mut [u8], address: u64) -> Result<()>;

    /// Now.
    fn event(&self) -> Result<Self::Event>;

    /// Waits until everything before the event is done.
    fn wait(&self, event: &Self::Event) -> Result<()>;
}

/// Pinned memory, allocated when it is first used.
pub struct Staging<E: Engine> {
    small: Ring<E>,
    large: Ring<E>,
}

struct Ring<E: Engine> {
    bytes: usize,
    count: usize,
    slots: Vec<Slot<E>>,
    next: usize,
}

struct Slot<E: Engine> {
    memory: E::Pinned,
    /// Behind the last copy that used it.
    free: Option<E::Event>,
}

impl<E: Engine> Default for Staging<E> {
    fn default() -> Staging<E> {
        Staging { small: Ring::new(SMALL), large: Ring::new(LARGE) }
    }
}

impl<E: Engine> Staging<E> {
    fn ring(&mut self, bytes: usize) -> &mut Ring<E> {
        if bytes <= self.small.bytes { &mut self.small } else { &mut self.large }
    }

    /// Copies `bytes` to the device; they may be changed at once.
    ///
    /// # Safety
    /// As many bytes stand at that address, and nobody else uses them.
    pub unsafe fn write(&mut self, engine: &E, address: u64, bytes: &[u8]) -> Result<()> {
        let ring = self.ring(bytes.len());
        let mut at = address;
        for piece in bytes.chunks(ring.bytes) {
            let number = ring.take(engine)?;
            let slot = &mut ring.slots[number];
            let memory = &mut slot.memory.as_mut()[..piece.len()];
            memory.copy_from_slice(piece);
            // SAFETY: of the address as of this function; the slot is left alone until its event.
            unsafe { engine.send(at, memory)? };
            slot.free = Some(engine.event()?);
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Copies from the device to `bytes`, and waits for that.
    ///
    /// # Safety
    /// As many bytes stand at that address.
    pub unsafe fn read(&mut self, engine: &E, bytes: &mut [u8], address: u64) -> Result<()> {
        let ring = self.ring(bytes.len());
        let (size, count) = (ring.bytes, ring.count);
        let mut pieces: Vec<&mut [u8]> = bytes.chunks_mut(size).collect();
        let mut coming = vec![];
        for i in 0..pieces.len() + count {
            if let Some(before) = i.checked_sub(count).filter(|before| *before < pieces.len()) {
                let slot: &mut Slot<E> = &mut ring.slots[coming[before]];
                slot.settle(engine)?;
                let piece = &mut pieces[before];
                piece.copy_from_slice(&slot.memory.as_mut()[..piece.len()]);
            }
            if let Some(piece) = pieces.get(i) {
                let number = ring.take(engine)?;
                coming.push(number);
                let slot = &mut ring.slots[number];
                let to = &mut slot.memory.as_mut()[..piece.len()];
                // SAFETY: of the address as of this function; the slot is left alone until its event.
                unsafe { engine.receive(to, address + (i * size) as u64)? };
                slot.free = Some(engine.event()?);
            }
        }
        Ok(())
    }
}

impl<E: Engine> Ring<E> {
    fn new((bytes, count): (usize, usize)) -> Ring<E> {
        Ring { bytes, count, slots: vec![], next: 0 }
    }

    /// The number of the next slot, which nothing uses any more.
    fn take(&mut self, engine: &E) -> Result<usize> {
        if self.slots.len() < self.count {
            self.slots.push(Slot { memory: engine.pinned(self.bytes)?, free: None });
            return Ok(self.slots.len() - 1);
        }
        let number = self.next;
        self.next = (number + 1) % self.count;
        self.slots[number].settle(engine)?;
        Ok(number)
    }
}

impl<E: Engine> Slot<E> {
    /// Waits until its last copy is done.
    fn settle(&mut self, engine: &E) -> Result<()> {
        self.free.take().map_or(Ok(()), |event| engine.wait(&event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    /// Copies as late as it may: when somebody waits. Memory of slots begins as what no copy writes.
    #[derive(Default)]
    struct Late {
        copies: RefCell<VecDeque<(usize, usize, usize)>>, // to, from, bytes
        done: RefCell<usize>,
        asked: RefCell<usize>,
        waits: RefCell<usize>,
    }

    impl Engine for Late {
        type Event = usize;
        type Pinned = Vec<u8>;

        fn pinned(&self, bytes: usize) -> Result<Vec<u8>> {
            Ok(vec![0xee; bytes])
        }

        unsafe fn send(&self, address: u64, from: &[u8]) -> Result<()> {
            self.copies.borrow_mut().push_back((address as usize, from.as_ptr() as usize, from.len()));
            *self.asked.borrow_mut() += 1;
            Ok(())
        }

        unsafe fn receive(&self, to: &mut [u8], address: u64) -> Result<()> {
            self.copies.borrow_mut().push_back((to.as_mut_ptr() as usize, address as usize, to.len()));
            *self.asked.borrow_mut() += 1;
            Ok(())
        }

        fn event(&self) -> Result<usize> {
            Ok(*self.asked.borrow())
        }

        fn wait(&self, event: &usize) -> Result<()> {
            *self.waits.borrow_mut() += 1;
            while *self.done.borrow() < *event {
                let (to, from, bytes) = self.copies.borrow_mut().pop_front().unwrap();
                // SAFETY: both live until the test is over, as `send` and `receive` were promised.
                unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
                *self.done.borrow_mut() += 1;
            }
            Ok(())
        }
    }

    #[test]
    fn what_was_written_is_read_however_late_the_copies_are() {
        let mut staging = Staging { small: Ring::new((4, 3)), large: Ring::new((16, 2)) };
        let engine = Late::default();
        for len in [0usize, 1, 4, 5, 16, 17, 31, 32, 33, 100] {
            let mut device = vec![0u8; len];
            let address = device.as_mut_ptr() as u64;
            let (mut values, mut found) = ((1..=len as u8).collect::<Vec<u8>>(), vec![0; len]);
            let waits = *engine.waits.borrow();
            // SAFETY: the device's memory holds len bytes.
            unsafe { staging.write(&engine, address, &values).unwrap() };
            assert!(*engine.waits.borrow() <= waits + len.div_ceil(16)); // at most one a piece
            values.fill(0); // the caller may do that at once
            // SAFETY: as above.
            unsafe { staging.read(&engine, &mut found, address).unwrap() };
            assert_eq!(found, (1..=len as u8).collect::<Vec<u8>>());
        }
        // A ring of three small slots takes three writes without a wait, and waits for the first of them before a fourth.
        let (mut staging, engine) =
            (Staging { small: Ring::new((4, 3)), large: Ring::new((16, 2)) }, Late::default());
        let mut device = [0u8; 16];
        let address = device.as_mut_ptr() as u64;
        for i in 0..4 {
            let so_far = (*engine.waits.borrow(), engine.copies.borrow().len());
            assert_eq!(so_far, (0, i as usize));
            // SAFETY: as above.
            unsafe { staging.write(&engine, address + 4 * i, &[1 + i as u8; 4]).unwrap() };
        }
        assert_eq!((*engine.waits.borrow(), engine.copies.borrow().len()), (1, 3));
        engine.wait(&engine.event().unwrap()).unwrap();
        assert_eq!(device, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]);
    }
}
