//! Who gets the next start: accounts in turn, and within an account its functions in turn, so that
//! a burst of one tenant costs the others one turn and not the length of the burst.
//!
//! It holds names only and decides nothing about room.

use std::collections::{HashMap, VecDeque};

use super::{FunctionId, TenantId};

/// The functions that want an Instance.
#[derive(Debug, Default)]
pub(super) struct Line {
    accounts: VecDeque<TenantId>,
    functions: HashMap<TenantId, VecDeque<FunctionId>>,
}

impl Line {
    /// Puts a function, which is not in the line, at the end of its account's.
    pub(super) fn join(&mut self, account: TenantId, function: FunctionId) {
        let functions = self.functions.entry(account).or_default();
        if functions.is_empty() {
            self.accounts.push_back(account);
        }
        functions.push_back(function);
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<FunctionId> {
        self.functions.get(self.accounts.front()?)?.front().copied()
    }

    /// Takes the first out.
    pub(super) fn pop(&mut self) {
        let Some(account) = self.accounts.front() else { return };
        let Some(functions) = self.functions.get_mut(account) else { return };
        functions.pop_front();
        if functions.is_empty() {
            self.functions.remove(account);
            self.accounts.pop_front();
        }
    }

    /// The first had its turn: the next account is first, and its own next function after that.
    pub(super) fn rotate(&mut self) {
        if let Some(functions) = self.accounts.front().and_then(|a| self.functions.get_mut(a)) {
            functions.rotate_left(1);
        }
        if !self.accounts.is_empty() {
            self.accounts.rotate_left(1);
        }
    }

    /// How many accounts are in the line.
    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// All of them, account by account in the order of their turns.
    pub(super) fn iter(&self) -> impl Iterator<Item = FunctionId> {
        let lists = self.accounts.iter().filter_map(|account| self.functions.get(account));
        lists.flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_take_turns_and_so_do_the_functions_of_each() {
        let mut line = Line::default();
        for function in 0..3 {
            line.join(TenantId(0), FunctionId(function));
        }
        line.join(TenantId(1), FunctionId(9));
        let mut turns = Vec::new();
        for _ in 0..6 {
            turns.push(line.first().expect("not empty").0);
            line.rotate();
        }
        assert_eq!(turns, [0, 9, 1, 9, 2, 9]);
    }

    #[test]
    fn an_account_leaves_with_its_last_function() {
        let mut line = Line::default();
        line.join(TenantId(0), FunctionId(0));
        line.join(TenantId(1), FunctionId(9));
        line.pop();
        assert_eq!((line.first(), line.accounts()), (Some(FunctionId(9)), 1));
        line.pop();
        assert_eq!((line.first(), line.accounts()), (None, 0));
    }
}
