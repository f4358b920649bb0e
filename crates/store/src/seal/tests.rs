//! What is sealed opens for its account, key and master, and for nothing else.

use proptest::prelude::*;

use lacewing_model::Region;

use super::*;

fn account(text: &str) -> AccountId {
    AccountId::new(text).expect("valid")
}

fn key(account: &AccountId, name: &str) -> Key {
    Key::new(account, &Region::new("us-east-1").expect("valid"), &["environment", name])
}

#[test]
fn a_sealed_value_opens_in_another_process_with_the_same_master() {
    let one = account("111111111111");
    let name = key(&one, "f");
    let sealed = Sealer::new([7; 32]).seal(&one, &name, b"secret");
    assert_eq!(Sealer::new([7; 32]).open(&one, &name, &sealed).expect("opens"), b"secret");
    assert!(!sealed.windows(6).any(|window| window == b"secret"));
}

#[test]
fn a_sealed_value_does_not_open_for_another_account_key_or_master() {
    let (one, two) = (account("111111111111"), account("222222222222"));
    let name = key(&one, "f");
    let sealer = Sealer::new([7; 32]);
    let sealed = sealer.seal(&one, &name, b"secret");
    assert!(matches!(sealer.open(&two, &name, &sealed), Err(StoreError::Unsealable)));
    assert!(matches!(sealer.open(&one, &key(&one, "g"), &sealed), Err(StoreError::Unsealable)));
    let other = Sealer::new([8; 32]);
    assert!(matches!(other.open(&one, &name, &sealed), Err(StoreError::Unsealable)));
}

#[test]
fn sealing_twice_gives_different_bytes() {
    let one = account("111111111111");
    let sealer = Sealer::new([7; 32]);
    let name = key(&one, "f");
    assert_ne!(sealer.seal(&one, &name, b"x"), sealer.seal(&one, &name, b"x"));
}

#[test]
fn a_data_key_is_replaced_when_it_is_worn() {
    let one = account("111111111111");
    let sealer = Sealer::new([7; 32]);
    let name = key(&one, "f");
    let wrapped = |sealed: &[u8]| sealed[1..=WRAPPED_LEN].to_vec();
    let first = wrapped(&sealer.seal(&one, &name, b"x"));
    assert_eq!(wrapped(&sealer.seal(&one, &name, b"x")), first);
    sealer.data_keys.lock().get_mut(&one).expect("it was used").uses = USES_OF_A_DATA_KEY;
    assert_ne!(wrapped(&sealer.seal(&one, &name, b"x")), first);
}

#[test]
fn a_token_is_no_value_and_a_value_is_no_token() {
    let one = account("111111111111");
    let name = key(&one, "f");
    let (sealer, tokens) = (Sealer::new([7; 32]), TokenSealer::new(&[7; 32]));
    assert!(tokens.open_token(&sealer.seal(&one, &name, b"x")).is_err());
    assert!(sealer.open(&one, &name, &tokens.seal_token(b"x")).is_err());
    assert_eq!(tokens.open_token(&tokens.seal_token(b"x")).expect("opens"), b"x");
    assert!(TokenSealer::new(&[8; 32]).open_token(&tokens.seal_token(b"x")).is_err());
}

#[test]
fn the_master_key_is_made_once_and_for_its_owner_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let master = load_or_create_master(dir.path()).expect("made");
    assert_eq!(load_or_create_master(dir.path()).expect("read"), master);
    let file = dir.path().join(MASTER_FILE);
    assert_eq!(fs::metadata(&file).expect("exists").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("changed");
    assert!(matches!(load_or_create_master(dir.path()), Err(StoreError::MasterKey { .. })));
}

#[test]
fn a_missing_master_key_is_not_made_by_reading_it() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(load_master(dir.path()), Err(StoreError::MasterKey { .. })));
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
}

#[test]
fn a_short_master_key_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(MASTER_FILE);
    fs::write(&file, [1; 31]).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("changed");
    assert!(matches!(load_or_create_master(dir.path()), Err(StoreError::MasterKey { .. })));
}

proptest! {
    #[test]
    fn a_changed_byte_is_noticed(
        plain in prop::collection::vec(any::<u8>(), 0..100),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let one = account("111111111111");
        let name = key(&one, "f");
        let sealer = Sealer::new([7; 32]);
        let mut sealed = sealer.seal(&one, &name, &plain);
        prop_assert_eq!(sealer.open(&one, &name, &sealed).expect("opens"), plain);
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(sealer.open(&one, &name, &sealed).is_err());
    }

    #[test]
    fn hostile_bytes_do_not_open(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let one = account("111111111111");
        prop_assert!(Sealer::new([7; 32]).open(&one, &key(&one, "f"), &bytes).is_err());
        prop_assert!(TokenSealer::new(&[7; 32]).open_token(&bytes).is_err());
    }
}
