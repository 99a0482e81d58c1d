//! The objects of a run (PURE): number to path and size, and back.

use crate::content::OBJECT_PREFIX;

/// The objects of a run. Number 0 is the most popular one.
#[derive(Clone, Debug)]
pub struct Catalog {
    stem: String,
    sizes: Vec<u64>,
}

impl Catalog {
    /// Objects of these sizes. Their names hold prefix, seed and number, so that runs with
    /// another prefix or seed share none.
    #[must_use]
    pub fn new(prefix: &str, workload_seed: u64, sizes: Vec<u64>) -> Self {
        Self { stem: format!("{prefix}-{workload_seed}-"), sizes }
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// True without any object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// The object's length; 0 for a number that is not in the catalog.
    #[must_use]
    pub fn size_bytes(&self, object: usize) -> u64 {
        self.sizes.get(object).copied().unwrap_or(0)
    }

    /// The object's path.
    #[must_use]
    pub fn path(&self, object: usize) -> String {
        format!("{OBJECT_PREFIX}{}/{}{object}", self.size_bytes(object), self.stem)
    }

    /// The number of the object at `path`, if it is one of these.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<usize> {
        let (size, name) = path.strip_prefix(OBJECT_PREFIX)?.split_once('/')?;
        let object: usize = name.strip_prefix(&self.stem)?.parse().ok()?;
        let size: u64 = size.parse().ok()?;
        (self.sizes.get(object) == Some(&size)).then_some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ObjectName;

    #[test]
    fn paths_name_objects_of_the_right_size_and_lead_back() {
        let catalog = Catalog::new("load", 7, vec![10, 2000]);
        assert_eq!(catalog.path(1), "/o/2000/load-7-1");
        assert_eq!(ObjectName::parse(&catalog.path(1)).unwrap().size_bytes(), 2000);
        assert_eq!(catalog.number("/o/2000/load-7-1"), Some(1));
        for other in ["/o/10/load-7-1", "/o/2000/load-8-1", "/o/2000/load-7-2", "/echo"] {
            assert_eq!(catalog.number(other), None, "{other}");
        }
    }
}
