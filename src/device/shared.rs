//! Values that copies share until one of them is changed (copy on write).

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

/// Values that copies share until one of them is changed, which then gets its own. Their address identifies them, so that a
/// device does not hold the same values twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared(Arc<Vec<f32>>);

impl Shared {
    /// A weak handle that identifies these values. It does not keep them alive; changed values have another identity.
    pub(super) fn identity(&self) -> Weak<Vec<f32>> {
        Arc::downgrade(&self.0)
    }

    /// Whether these are the identified values, unchanged.
    pub(super) fn is(&self, identity: &Weak<Vec<f32>>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.0), identity.as_ptr())
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
    fn a_change_gives_values_a_new_identity_and_leaves_copies_alone() {
        let mut values = Shared::from(vec![1.0, 2.0]);
        let (copy, identity) = (values.clone(), values.identity());
        assert!(values.is(&identity) && copy.is(&identity));
        values[0] = 3.0;
        assert!(!values.is(&identity) && copy.is(&identity) && copy[0] == 1.0);
        let identity = values.identity();
        values[0] = 4.0; // no other copy
        assert!(!values.is(&identity) && identity.upgrade().is_none());
    }
}
