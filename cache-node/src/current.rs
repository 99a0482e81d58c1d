//! A value that is replaced as a whole, while those who use it go on with what they got.
//!
//! Invariant: nobody waits while a value is made or used, only while a pointer is copied. Must not
//! know what the value is.

use std::sync::{Arc, PoisonError, RwLock};

/// The newest value.
#[derive(Debug, Default)]
pub struct Current<T>(RwLock<Arc<T>>);

impl<T> Current<T> {
    /// Begins with `value`.
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// The newest value.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `read` on the newest value; for a moment only.
    pub fn with<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everybody gets `value` from here on.
    pub fn set(&self, value: T) {
        let value = Arc::new(value);
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, value);
        drop(current);
        // What it takes to drop the old one is not waited for.
        drop(before);
    }
}

impl<T> From<T> for Current<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_value_keeps_it() {
        let current = Current::new(1);
        let had = current.get();
        current.set(2);
        assert_eq!((*had, *current.get(), current.with(|value| *value)), (1, 2, 2));
    }
}
