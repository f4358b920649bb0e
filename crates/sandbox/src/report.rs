//! What this host gives and what it does not, for the ready line and `lacewing doctor`.

use serde::{Deserialize, Serialize};

/// What the launcher found at its start.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Each part of the isolation.
    pub features: Vec<Feature>,
    /// `v1`, `v2`, `hybrid` or `none`.
    pub cgroup: String,
    /// Whether the launcher has the rights of root.
    pub root: bool,
}

/// One part of the isolation.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Short stable name.
    pub name: String,
    /// Whether every sandbox of this launcher has it.
    pub in_force: bool,
    /// Whether full isolation needs it; others add depth and are reported only.
    pub required: bool,
    /// What was found.
    pub detail: String,
    /// What the operator can do about it, when it is missing.
    pub remedy: Option<String>,
}

impl Report {
    /// Whether everything that full isolation needs is in force.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.root && self.missing().next().is_none()
    }

    /// Lists what full isolation needs and this host does not give.
    pub fn missing(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter().filter(|feature| feature.required && !feature.in_force)
    }

    /// Lists what would add depth to full isolation and is not in force; the way out is no part of it.
    pub fn without(&self) -> impl Iterator<Item = &Feature> {
        let others = self.features.iter().filter(|feature| feature.name != "egress");
        others.filter(|feature| !feature.required && !feature.in_force)
    }
}
