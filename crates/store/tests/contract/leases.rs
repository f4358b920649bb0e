//! What leases promise.

use std::time::Duration;

use lacewing_store::StoreError;

use crate::side::{Bed, key};

const TTL: Duration = Duration::from_secs(10);

pub async fn a_name_has_one_holder(bed: &Bed) {
    let leases = &bed.store.leases;
    let lease = leases.acquire(&key(&["a"]), TTL).await.expect("asked").expect("free");
    assert_eq!(leases.acquire(&key(&["a"]), TTL).await.expect("asked"), None);
    assert!(leases.acquire(&key(&["b"]), TTL).await.expect("asked").is_some());
    bed.advance(9);
    let renewed = leases.renew(&lease, TTL).await.expect("renewed");
    assert_eq!(renewed.token, lease.token);
    bed.advance(9);
    assert_eq!(leases.acquire(&key(&["a"]), TTL).await.expect("asked"), None);
    bed.advance(1);
    assert!(leases.acquire(&key(&["a"]), TTL).await.expect("asked").is_some());
}

pub async fn a_token_grows_with_every_lease(bed: &Bed) {
    let mut last = 0;
    for round in 0..6 {
        let acquired = bed.store.leases.acquire(&key(&["a"]), TTL).await;
        let lease = acquired.expect("asked").expect("free");
        assert!(lease.token > last);
        last = lease.token;
        match round % 2 {
            0 => bed.store.leases.release(&lease).await.expect("released"),
            _ => bed.advance(10),
        }
    }
}

pub async fn a_lost_lease_cannot_be_renewed_or_released(bed: &Bed) {
    let leases = &bed.store.leases;
    let first = leases.acquire(&key(&["a"]), TTL).await.expect("asked").expect("free");
    bed.advance(10);
    assert!(matches!(leases.renew(&first, TTL).await, Err(StoreError::NotFound)));
    let second = leases.acquire(&key(&["a"]), TTL).await.expect("asked").expect("free");
    assert!(matches!(leases.renew(&first, TTL).await, Err(StoreError::NotFound)));
    leases.release(&first).await.expect("it holds no more");
    assert_eq!(leases.acquire(&key(&["a"]), TTL).await.expect("asked"), None);
    leases.release(&second).await.expect("released");
    assert!(matches!(leases.renew(&second, TTL).await, Err(StoreError::NotFound)));
}
