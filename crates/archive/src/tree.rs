//! The tree that an archive describes, and where its links lead.
//!
//! Links are resolved as the kernel would: a `..` after a link leaves the link's target, not the
//! link (path_resolution(7)). A link that would leave the tree at any step is refused, also if
//! nothing exists there.

use std::collections::BTreeMap;

use crate::error::{ArchiveError, shorten};
use crate::path;

/// Links that one resolution may pass, as Linux bounds it.
const HOPS: usize = 40;

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory.
    Directory,
    /// A file, and whether it may be executed.
    File {
        /// Any of the three x bits was set.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as it is written.
        target: String,
    },
}

/// Paths and what they are.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds an entry; a directory may be named more than once.
    pub(crate) fn add(&mut self, path: &str, node: Node) -> Result<(), ArchiveError> {
        match self.0.get(path) {
            Some(Node::Directory) if node == Node::Directory => Ok(()),
            Some(_) => Err(ArchiveError::Duplicate { name: shorten(path) }),
            None => {
                self.0.insert(path.to_owned(), node);
                Ok(())
            }
        }
    }

    /// Checks that nothing lies beneath a file or a link and that no link leads outside.
    pub(crate) fn check(&self) -> Result<(), ArchiveError> {
        for (path, node) in &self.0 {
            for parent in path::parents(path) {
                if !matches!(self.0.get(parent), None | Some(Node::Directory)) {
                    let reason = "it lies beneath a file or a link";
                    return Err(ArchiveError::unsafe_path(path, reason));
                }
            }
            if let Node::Link { target } = node
                && !self.stays_inside(path, target)
            {
                let (name, target) = (shorten(path), shorten(target));
                return Err(ArchiveError::UnsafeLink { name, target });
            }
        }
        Ok(())
    }

    /// All entries in the order of their paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// What a path is.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    fn stays_inside(&self, link: &str, target: &str) -> bool {
        let mut here: Vec<&str> = link.split('/').collect();
        here.pop();
        let mut left: Vec<&str> = target.split('/').rev().collect();
        if target.starts_with('/') {
            return false;
        }
        let mut hops = 0;
        while let Some(part) = left.pop() {
            match part {
                "" | "." => continue,
                ".." if here.pop().is_none() => return false,
                ".." => continue,
                part => here.push(part),
            }
            if let Some(Node::Link { target }) = self.0.get(&here.join("/")) {
                hops += 1;
                if hops > HOPS || target.starts_with('/') {
                    return false;
                }
                here.pop();
                left.extend(target.split('/').rev());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(links: &[(&str, &str)]) -> Result<(), ArchiveError> {
        let mut tree = Tree::default();
        tree.add("file", Node::File { executable: false })?;
        for (path, target) in links {
            tree.add(path, Node::Link { target: (*target).to_owned() })?;
        }
        tree.check()
    }

    #[test]
    fn links_inside_are_kept() {
        tree(&[("a/b/l", "../../file")]).expect("inside");
        tree(&[("l", "nothing/there")]).expect("dangling but inside");
        tree(&[("d/l", ".."), ("m", "d/l/file")]).expect("inside through a link");
    }

    #[test]
    fn links_outside_are_refused() {
        let outside: [&[(&str, &str)]; 6] = [
            &[("l", "/etc/passwd")],
            &[("l", "../x")],
            &[("a/l", "../../x")],
            &[("l", "a/../../a")],
            // Inside by the text alone; the kernel goes to the root's parent.
            &[("x/y/up", "../.."), ("m", "x/y/up/..")],
            &[("a", "b"), ("b", "a")],
        ];
        for links in outside {
            assert!(matches!(tree(links), Err(ArchiveError::UnsafeLink { .. })), "{links:?}");
        }
    }

    #[test]
    fn nothing_may_lie_beneath_a_link_or_a_file() {
        let beneath_link = tree(&[("d", "x"), ("d/f", "file")]);
        assert!(matches!(beneath_link, Err(ArchiveError::UnsafePath { .. })));
        let beneath_file = tree(&[("file/x", "y")]);
        assert!(matches!(beneath_file, Err(ArchiveError::UnsafePath { .. })));
    }

    proptest! {
        #[test]
        fn resolution_agrees_with_the_kernel(
            links in proptest::collection::vec(("[ab](/[ab]){0,2}", "(\\.\\.|[ab])(/(\\.\\.|[ab])){0,3}"), 1..6)
        ) {
            let outer = tempfile::tempdir().expect("a directory");
            let root = outer.path().join("root");
            std::fs::create_dir(&root).expect("made");
            let mut tree = Tree::default();
            for (path, target) in &links {
                if tree.add(path, Node::Link { target: target.clone() }).is_err() {
                    return Ok(());
                }
            }
            if tree.check().is_err() {
                return Ok(());
            }
            for (path, target) in &links {
                let at = root.join(path);
                std::fs::create_dir_all(at.parent().expect("has one")).expect("made");
                std::os::unix::fs::symlink(target, &at).expect("made");
            }
            let inside = root.canonicalize().expect("exists");
            for (path, _) in &links {
                if let Ok(found) = root.join(path).canonicalize() {
                    prop_assert!(found.starts_with(&inside), "{path} leads to {found:?}");
                }
            }
        }
    }
}
