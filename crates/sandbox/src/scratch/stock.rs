//! What the maker has ready: images of the sizes in use, and some mounted file systems of each.
//!
//! It says what to make and what to drop; it does none of it itself.

use std::os::fd::OwnedFd;

use crate::TmpFs;

use super::image::Image;

/// File systems of one size that are ready at a time, and for how many sizes.
const READY: usize = 8;
const SIZES: usize = 4;
/// Sizes whose images are remembered.
const IMAGES: usize = 64;

/// All that is ready, the sizes that were asked for last first.
#[derive(Debug, Default)]
pub(super) struct Stock {
    shelves: Vec<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    tmp: TmpFs,
    image: Image,
    ready: Vec<OwnedFd>,
}

impl Stock {
    /// Whether the image of this size is known.
    pub(super) fn knows(&self, tmp: TmpFs) -> bool {
        self.shelves.iter().any(|shelf| shelf.tmp == tmp)
    }

    /// Adds the image of a size; the one that was not used for longest is forgotten for it.
    pub(super) fn learn(&mut self, tmp: TmpFs, image: Image) {
        self.shelves.truncate(IMAGES - 1);
        self.shelves.push(Shelf { tmp, image, ready: Vec::new() });
    }

    /// Takes a ready one of this size, and notes that the size is in use.
    pub(super) fn take(&mut self, tmp: TmpFs) -> Option<OwnedFd> {
        let place = self.shelves.iter().position(|shelf| shelf.tmp == tmp)?;
        self.shelves.get_mut(..=place)?.rotate_right(1);
        for old in self.shelves.iter_mut().skip(SIZES) {
            old.ready.clear();
        }
        self.shelves.first_mut()?.ready.pop()
    }

    /// The image of a size.
    pub(super) fn image(&self, tmp: TmpFs) -> Option<&Image> {
        self.shelves.iter().find(|shelf| shelf.tmp == tmp).map(|shelf| &shelf.image)
    }

    /// The size of which one more should be made ready.
    pub(super) fn wanted(&self) -> Option<TmpFs> {
        let mut used = self.shelves.iter().take(SIZES);
        used.find(|shelf| shelf.ready.len() < READY).map(|shelf| shelf.tmp)
    }

    /// Whether few are left of what is used most.
    pub(super) fn is_low(&self) -> bool {
        self.shelves.first().is_some_and(|shelf| shelf.ready.len() < READY / 2)
    }

    /// Puts a new one beside the others of its size.
    pub(super) fn put(&mut self, tmp: TmpFs, mount: OwnedFd) {
        if let Some(shelf) = self.shelves.iter_mut().find(|shelf| shelf.tmp == tmp) {
            shelf.ready.push(mount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: u64) -> TmpFs {
        TmpFs { bytes, inodes: 1 }
    }

    fn mount() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn stock(sizes: u64) -> Stock {
        let mut stock = Stock::default();
        for bytes in 0..sizes {
            stock.learn(size(bytes), Image::default());
            stock.take(size(bytes));
        }
        stock
    }

    #[test]
    fn the_size_asked_for_last_is_made_first_and_to_a_number() {
        let mut stock = stock(2);
        for _ in 0..READY {
            assert_eq!(stock.wanted(), Some(size(1)));
            stock.put(size(1), mount());
        }
        assert_eq!(stock.wanted(), Some(size(0)));
        assert!(stock.take(size(1)).is_some());
        assert_eq!(stock.wanted(), Some(size(1)));
    }

    #[test]
    fn sizes_out_of_use_are_not_kept_ready() {
        let sizes = SIZES as u64;
        let mut stock = stock(sizes);
        stock.put(size(0), mount());
        stock.learn(size(sizes), Image::default());
        assert!(stock.take(size(sizes)).is_none());
        assert!(stock.take(size(0)).is_none());
    }

    #[test]
    fn the_oldest_image_is_forgotten() {
        let stock = stock(IMAGES as u64 + 1);
        assert!(!stock.knows(size(0)));
        assert!(stock.knows(size(IMAGES as u64)));
        assert_eq!(stock.shelves.len(), IMAGES);
    }
}
