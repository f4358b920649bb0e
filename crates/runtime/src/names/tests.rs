//! The relay between real sockets: a client, and a resolver that says what a test wants.

use std::net::Ipv4Addr;

use tokio::task::JoinHandle;

use super::*;

/// `example.com A`, as number 7.
const QUESTION: &[u8] = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
                          \x07example\x03com\x00\x00\x01\x00\x01";
const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// The answer to a query with this address.
fn answer(query: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2] = 0x81;
    bytes[7] = 1;
    bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04");
    bytes.extend(address);
    bytes
}

/// A resolver that sends these datagrams for each query.
async fn resolver(
    answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = TaskTracker::new().spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for answer in answers(&buffer[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    (address, task)
}

/// A relay before these resolvers, and its address.
fn relay(resolvers: Vec<SocketAddr>) -> (SocketAddr, SocketAddr, CancellationToken) {
    let udp = std::net::UdpSocket::bind(LOCAL).unwrap();
    let tcp = std::net::TcpListener::bind(LOCAL).unwrap();
    udp.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let addresses = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let relay = NameRelay::new(NameServer { udp, tcp }, resolvers, Policy::default()).unwrap();
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(relay.serve(stop.clone()));
    (addresses.0, addresses.1, stop)
}

async fn ask(relay: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    socket.send_to(query, relay).await.unwrap();
    let mut buffer = [0; 512];
    let received = timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await;
    buffer[..received.unwrap().unwrap()].to_vec()
}

#[tokio::test]
async fn an_answer_comes_back_although_forged_ones_came_before() {
    let (address, _task) = resolver(|query| {
        let mut forged = answer(query, [6, 6, 6, 6]);
        forged[0] ^= 0x55;
        let mut other = answer(query, [6, 6, 6, 6]);
        other[14] ^= 0x01;
        vec![vec![1, 2, 3], forged, other, answer(query, [1, 2, 3, 4])]
    })
    .await;
    let (relay, _, _stop) = relay(vec![address]);
    assert_eq!(ask(relay, QUESTION).await, answer(QUESTION, [1, 2, 3, 4]));
}

#[tokio::test]
async fn a_private_address_is_not_told() {
    let (address, _task) = resolver(|query| vec![answer(query, [192, 168, 1, 1])]).await;
    let (relay, _, _stop) = relay(vec![address]);
    let told = ask(relay, QUESTION).await;
    assert_eq!((told[3] & 0x0f, told[7], told.len()), (0, 0, QUESTION.len()));
}

#[tokio::test]
async fn queries_carry_numbers_that_differ_from_the_sandboxs_own() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let (address, _task) = resolver(move |query| {
        kept.lock().push([query[0], query[1]]);
        vec![answer(query, [1, 2, 3, 4])]
    })
    .await;
    let (relay, _, _stop) = relay(vec![address]);
    for _ in 0..8 {
        ask(relay, QUESTION).await;
    }
    let mut numbers = seen.lock().clone();
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.len() > 4, "{numbers:?}");
}

#[tokio::test]
async fn a_resolver_that_is_silent_gives_way_to_the_next() {
    let (silent, _one) = resolver(|_| Vec::new()).await;
    let (address, _other) = resolver(|query| vec![answer(query, [1, 2, 3, 4])]).await;
    let (first, ..) = relay(vec![silent, address]);
    assert_eq!(ask(first, QUESTION).await, answer(QUESTION, [1, 2, 3, 4]));
    let (alone, ..) = relay(vec![silent]);
    assert_eq!(ask(alone, QUESTION).await[3] & 0x0f, 2);
}

#[tokio::test]
async fn a_connection_is_served_too() {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let query = read(&mut stream).await.unwrap();
        write(&mut stream, &answer(&query, [1, 2, 3, 4])).await.unwrap();
    });
    let (_, relay, _stop) = relay(vec![address]);
    let mut stream = TcpStream::connect(relay).await.unwrap();
    write(&mut stream, QUESTION).await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), answer(QUESTION, [1, 2, 3, 4]));
}

#[tokio::test]
async fn one_sandbox_has_only_so_many_questions_open() {
    let seen = Arc::new(Mutex::new(0_u32));
    let count = Arc::clone(&seen);
    let (silent, _task) = resolver(move |_| {
        *count.lock() += 1;
        Vec::new()
    })
    .await;
    let (relay, ..) = relay(vec![silent]);
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    for _ in 0..3 * OPEN {
        socket.send_to(QUESTION, relay).await.unwrap();
    }
    // All that it will ask are answered, with a failure, when its patience is over.
    let mut buffer = [0; 512];
    for _ in 0..OPEN {
        let received = timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await;
        assert_eq!(received.unwrap().unwrap(), QUESTION.len());
    }
    assert_eq!(*seen.lock(), OPEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a bench, run by make bench"]
async fn bench_relay() {
    let (resolver, _task) = resolver(|query| vec![answer(query, [1, 2, 3, 4])]).await;
    let (relay, ..) = relay(vec![resolver]);
    for (name, address) in [("the resolver alone", resolver), ("through the relay", relay)] {
        let socket = UdpSocket::bind(LOCAL).await.unwrap();
        socket.connect(address).await.unwrap();
        let mut times = Vec::new();
        for _ in 0..3000 {
            let started = std::time::Instant::now();
            socket.send(QUESTION).await.unwrap();
            socket.recv(&mut [0; 512]).await.unwrap();
            times.push(started.elapsed());
        }
        times.sort_unstable();
        println!("a name from {name}: p50 {:?}, p99 {:?}", times[1500], times[2970]);
    }
}
