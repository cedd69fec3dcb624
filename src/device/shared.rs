//! Values that copies share until one of them is changed.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

/// Values that copies share until one of them is changed, which then has its own: where they stand says which they are,
/// so that a device need not have the same ones twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared(Arc<Vec<f32>>);

impl Shared {
    /// What knows these values again, and keeps nobody from changing them: they then stand elsewhere.
    pub(super) fn known(&self) -> Weak<Vec<f32>> {
        Arc::downgrade(&self.0)
    }

    /// Whether these are the known values, unchanged.
    pub(super) fn is(&self, known: &Weak<Vec<f32>>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.0), known.as_ptr())
    }
}

impl From<Vec<f32>> for Shared {
    fn from(values: Vec<f32>) -> Shared {
        Shared(Arc::new(values))
    }
}

impl FromIterator<f32> for Shared {
    fn from_iter<I: IntoIterator<Item = f32>>(values: I) -> Shared {
        Vec::from_iter(values).into()
    }
}

impl Deref for Shared {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut [f32] {
        Arc::make_mut(&mut self.0).as_mut_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_changed_are_others_and_copies_are_not() {
        let mut values = Shared::from(vec![1.0, 2.0]);
        let (copy, known) = (values.clone(), values.known());
        assert!(values.is(&known) && copy.is(&known));
        values[0] = 3.0;
        assert!(!values.is(&known) && copy.is(&known) && copy[0] == 1.0);
        let known = values.known();
        values[0] = 4.0; // nobody else has them
        assert!(!values.is(&known) && known.upgrade().is_none());
    }
}
