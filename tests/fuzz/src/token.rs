//! Sealed values that come back from outside: nothing opens but what was sealed.

use lacewing_model::AccountId;
use lacewing_store::Key;
use lacewing_store::seal::{Sealer, TokenSealer};

const MASTER: [u8; 32] = [7; 32];

/// Opens the bytes, then seals them and opens that.
pub fn run(data: &[u8]) {
    let tokens = TokenSealer::new(&MASTER);
    assert!(tokens.open_token(data).is_err(), "a token was forged");
    let sealed = tokens.seal_token(data);
    assert_eq!(tokens.open_token(&sealed).ok().as_deref(), Some(data));
    let account = AccountId::new("000000000000").expect("well formed");
    let key = Key::global(&["environment", "hello"]);
    let opened = Sealer::new(MASTER).open(&account, &key, data);
    assert!(opened.is_err(), "a sealed value was forged");
}
