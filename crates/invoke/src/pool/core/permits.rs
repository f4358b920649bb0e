//! Who may run how much at once: an account's concurrency, what functions have reserved of it, and
//! what is left for all others.
//!
//! ```text
//!  account's concurrency = guaranteed (reserved or provisioned, each for its function)
//!                        + unreserved (shared by the rest, and by provisioned functions beyond theirs)
//! ```
//!
//! Reserved is a cap and a guarantee; provisioned is a guarantee only. Source: "Understanding Lambda
//! function scaling", <https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html>. It
//! knows no Instances and no time, and never lets an account run more than its concurrency, however
//! the guarantees change while invocations are under way.

use super::Refusal;

/// What one version of a function may have, and has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quota {
    pub(super) provisioned: u32,
    /// Invocations, waiting ones included.
    pub(super) running: u32,
}

/// What all versions of one function may have, and have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Family {
    pub(super) reserved: Option<u32>,
    pub(super) running: u32,
    /// The sum over its versions.
    provisioned: u32,
    /// Invocations of versions beyond what is provisioned for each.
    beyond: u32,
}

/// What one account may have, and has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permits {
    pub(super) limit: u32,
    /// Invocations of all its functions, waiting ones included.
    pub(super) running: u32,
    /// Those of them that use no guarantee.
    unreserved: u32,
    /// The sum of all guarantees, of functions that nobody calls too.
    pub(super) guaranteed: u32,
}

// === Quota ===

impl Quota {
    fn beyond(self) -> u32 {
        self.running.saturating_sub(self.provisioned)
    }
}

// === Family ===

impl Family {
    /// Nobody else gets so much of the account's concurrency.
    fn guaranteed(&self) -> u32 {
        self.reserved.unwrap_or(self.provisioned)
    }

    /// What all its versions are promised together.
    pub(super) fn provisioned(&self) -> u32 {
        self.provisioned
    }

    /// What it takes from what is shared.
    fn borrowed(&self) -> u32 {
        if self.reserved.is_some() { 0 } else { self.beyond }
    }
}

// === Permits ===

impl Permits {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, running: 0, unreserved: 0, guaranteed: 0 }
    }

    /// Takes a permit for one more invocation.
    pub(super) fn take(&mut self, family: &mut Family, quota: &mut Quota) -> Result<(), Refusal> {
        if family.reserved.is_some_and(|reserved| family.running >= reserved) {
            return Err(Refusal::ReservedConcurrency);
        }
        let borrows = family.reserved.is_none() && quota.running >= quota.provisioned;
        let shared = self.limit.saturating_sub(self.guaranteed);
        if self.running >= self.limit || (borrows && self.unreserved >= shared) {
            return Err(Refusal::AccountConcurrency);
        }
        self.running += 1;
        self.change(family, quota, |family, quota| {
            family.running += 1;
            quota.running += 1;
        });
        Ok(())
    }

    /// Gives one back.
    pub(super) fn give_back(&mut self, family: &mut Family, quota: &mut Quota) {
        self.running -= 1;
        self.change(family, quota, |family, quota| {
            family.running -= 1;
            quota.running -= 1;
        });
    }

    /// From here on the function has so much for itself and no more.
    pub(super) fn reserve(&mut self, family: &mut Family, reserved: Option<u32>) {
        self.change(family, &mut Quota::default(), |family, _| family.reserved = reserved);
    }

    /// From here on so many Instances of the version are kept ready.
    pub(super) fn provision(&mut self, family: &mut Family, quota: &mut Quota, count: u32) {
        self.change(family, quota, |_, quota| quota.provisioned = count);
    }

    fn change(
        &mut self,
        family: &mut Family,
        quota: &mut Quota,
        change: impl FnOnce(&mut Family, &mut Quota),
    ) {
        self.unreserved -= family.borrowed();
        self.guaranteed = self.guaranteed.saturating_sub(family.guaranteed());
        family.beyond -= quota.beyond();
        family.provisioned = family.provisioned.saturating_sub(quota.provisioned);
        change(family, quota);
        family.provisioned = family.provisioned.saturating_add(quota.provisioned);
        family.beyond += quota.beyond();
        self.unreserved += family.borrowed();
        self.guaranteed = self.guaranteed.saturating_add(family.guaranteed());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn function() -> (Family, Quota) {
        (Family::default(), Quota::default())
    }

    #[test]
    fn what_is_reserved_is_a_cap_and_a_guarantee() {
        let mut account = Permits::new(3);
        let ((mut one, mut its), (mut other, mut others)) = (function(), function());
        account.reserve(&mut one, Some(1));
        assert_eq!(account.take(&mut other, &mut others), Ok(()));
        assert_eq!(account.take(&mut other, &mut others), Ok(()));
        let refused = account.take(&mut other, &mut others);
        assert_eq!(refused, Err(Refusal::AccountConcurrency));
        assert_eq!(account.take(&mut one, &mut its), Ok(()));
        assert_eq!(account.take(&mut one, &mut its), Err(Refusal::ReservedConcurrency));
    }

    #[test]
    fn versions_share_what_is_reserved() {
        let mut account = Permits::new(3);
        let ((mut family, mut latest), mut first) = (function(), Quota::default());
        account.reserve(&mut family, Some(1));
        assert_eq!(account.take(&mut family, &mut latest), Ok(()));
        assert_eq!(account.take(&mut family, &mut first), Err(Refusal::ReservedConcurrency));
    }

    #[test]
    fn what_is_provisioned_is_a_guarantee_and_no_cap() {
        let mut account = Permits::new(3);
        let ((mut one, mut its), (mut other, mut others)) = (function(), function());
        account.provision(&mut one, &mut its, 1);
        for _ in 0..2 {
            assert_eq!(account.take(&mut one, &mut its), Ok(()));
        }
        assert_eq!(account.take(&mut other, &mut others), Ok(()));
        let refused = account.take(&mut other, &mut others);
        assert_eq!(refused, Err(Refusal::AccountConcurrency));
    }

    #[test]
    fn nothing_reserved_turns_a_function_off_and_takes_nothing_from_others() {
        let mut account = Permits::new(1);
        let ((mut one, mut its), (mut other, mut others)) = (function(), function());
        account.reserve(&mut one, Some(0));
        assert_eq!(account.take(&mut one, &mut its), Err(Refusal::ReservedConcurrency));
        assert_eq!(account.take(&mut other, &mut others), Ok(()));
    }

    proptest! {
        #[test]
        fn an_account_never_runs_more_than_it_may(
            limit in 0..6_u32,
            steps in prop::collection::vec((0..4_usize, 0..4_u8, 0..7_u32), 1..200),
        ) {
            // Two functions of two versions.
            let mut account = Permits::new(limit);
            let (mut families, mut quotas) = ([Family::default(); 2], [Quota::default(); 4]);
            for (which, what, count) in steps {
                let (family, quota) = (&mut families[which / 2], &mut quotas[which]);
                match what {
                    0 => drop(account.take(family, quota)),
                    1 if quota.running > 0 => account.give_back(family, quota),
                    2 => account.reserve(family, (count < 6).then_some(count)),
                    3 => account.provision(family, quota, count),
                    _ => {}
                }
                let running: u32 = quotas.iter().map(|quota| quota.running).sum();
                prop_assert_eq!(running, families.iter().map(|family| family.running).sum::<u32>());
                let borrowed: u32 = families.iter().map(Family::borrowed).sum();
                prop_assert_eq!((account.running, account.unreserved), (running, borrowed));
                let guaranteed: u32 = families.iter().map(Family::guaranteed).sum();
                prop_assert_eq!(account.guaranteed, guaranteed);
                prop_assert!(account.running <= limit);
            }
        }
    }
}
