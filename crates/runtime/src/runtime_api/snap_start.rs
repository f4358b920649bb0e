//! What the Runtime API has beside for a runtime with SnapStart: credentials that are in no snapshot, and calls
//! that were under way when it was copied.
//!
//! Sources: "Runtime hooks for Lambda SnapStart",
//! <https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks.html>; "Using environment variables",
//! <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>; "Container credential provider",
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;

use lacewing_model::{Credentials, Secret};

/// Where a runtime gets its credentials.
pub(crate) const CREDENTIALS_PATH: &str = "/2021-04-23/credentials";

/// The terms of one runtime.
#[derive(Clone, Debug)]
pub(crate) struct SnapStart {
    /// What it says to get them. A snapshot and its copies have the same.
    authorization: Secret<String>,
    credentials: Credentials,
    /// What it had asked for when it was copied, if it is a copy.
    asked: Option<Vec<Asked>>,
}

/// A call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The port of the runtime's end.
    pub(crate) port: u16,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// For an event.
    Next,
    /// To be copied.
    Restore,
}

impl SnapStart {
    /// Those of a runtime that is to be copied.
    pub(crate) fn new(credentials: Credentials) -> Self {
        let authorization = Secret::new(Uuid::new_v4().simple().to_string());
        Self { authorization, credentials, asked: None }
    }

    /// Those of a copy.
    pub(crate) fn of_copy(&self, credentials: Credentials, asked: Vec<Asked>) -> Self {
        Self { authorization: self.authorization.clone(), credentials, asked: Some(asked) }
    }

    pub(crate) fn authorization(&self) -> &Secret<String> {
        &self.authorization
    }

    pub(crate) fn is_copy(&self) -> bool {
        self.asked.is_some()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.clone().unwrap_or_default()
    }

    /// The credentials, for who says the right word.
    pub(crate) fn credentials(&self, word: &[u8]) -> Option<Bytes> {
        let wanted = self.authorization.expose().as_bytes();
        verify_slices_are_equal(word, wanted).ok()?;
        let Credentials { access_key_id, secret_access_key, session_token, expires } =
            &self.credentials;
        let document = json!({
            "AccessKeyId": access_key_id,
            "SecretAccessKey": secret_access_key.expose(),
            "Token": session_token.as_ref().map(Secret::expose),
            "Expiration": expires.map(|moment| moment.to_rfc3339_millis()),
        });
        Some(document.to_string().into())
    }
}

impl What {
    /// The request as it came.
    pub(crate) fn request(self) -> &'static [u8] {
        match self {
            Self::Next => {
                b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
            }
            Self::Restore => {
                b"GET /2018-06-01/runtime/restore/next HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
            }
        }
    }
}

/// Calls that are under way.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    /// Those that wait.
    waiting: Vec<Asked>,
    counts: Counts,
}

/// How many calls there are, and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    begun: u64,
    /// With those that wait.
    under_way: usize,
    waiting: usize,
}

impl Counts {
    /// Whether all that are under way wait.
    pub(crate) fn are_at_rest(self) -> bool {
        self.under_way == self.waiting
    }
}

/// A call that is under way, as long as this lives.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a Waiting);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.lock().counts.under_way -= 1;
    }
}

/// One of them, as long as this lives.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    waiting: &'a Waiting,
    asked: Asked,
}

impl Waiting {
    /// Counts a call.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        let counts = &mut self.0.lock().counts;
        counts.begun += 1;
        counts.under_way += 1;
        UnderWay(self)
    }

    /// Notes that one waits.
    pub(crate) fn enter(&self, asked: Asked) -> Wait<'_> {
        self.0.lock().waiting.push(asked);
        Wait { waiting: self, asked }
    }

    pub(crate) fn all(&self) -> Vec<Asked> {
        self.0.lock().waiting.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        let calls = self.0.lock();
        Counts { waiting: calls.waiting.len(), ..calls.counts }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let all = &mut self.waiting.0.lock().waiting;
        if let Some(at) = all.iter().position(|it| *it == self.asked) {
            all.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(key: &str) -> Credentials {
        Credentials {
            access_key_id: key.to_owned(),
            secret_access_key: Secret::new("secret".to_owned()),
            session_token: Some(Secret::new("token".to_owned())),
            expires: None,
        }
    }

    #[test]
    fn only_who_knows_the_word_gets_credentials() {
        let terms = SnapStart::new(credentials("A"));
        let word = terms.authorization().expose().clone();
        let copy = terms.of_copy(credentials("B"), Vec::new());
        assert!(copy.is_copy() && !terms.is_copy());
        for wrong in ["", "x", &word[1..], &format!("{word} ")] {
            assert!(copy.credentials(wrong.as_bytes()).is_none());
        }
        let document = copy.credentials(word.as_bytes()).expect("it is the word");
        let document: serde_json::Value = serde_json::from_slice(&document).expect("JSON");
        assert_eq!((&document["AccessKeyId"], &document["Token"]), (&"B".into(), &"token".into()));
    }

    #[test]
    fn who_waits_is_known_until_he_does_not() {
        let waiting = Waiting::default();
        let asked = |port| Asked { port, what: What::Next };
        let first = waiting.enter(asked(1));
        let second = waiting.enter(asked(2));
        assert_eq!(waiting.all(), [asked(1), asked(2)]);
        drop(first);
        assert_eq!(waiting.all(), [asked(2)]);
        drop(second);
        assert!(waiting.all().is_empty());
        let before = waiting.counts();
        let call = waiting.begin();
        assert!(before.are_at_rest() && !waiting.counts().are_at_rest());
        let wait = waiting.enter(asked(3));
        assert!(waiting.counts().are_at_rest());
        drop(wait);
        drop(call);
        assert!(waiting.counts().are_at_rest() && waiting.counts() != before, "there was one");
    }
}
