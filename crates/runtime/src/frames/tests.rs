//! Tests of `frames`.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 1).expect("small").to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).expect("small").to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Feeds the bytes in pieces of these sizes and gathers what comes.
fn decode(bytes: &[u8], pieces: &[usize]) -> Result<Vec<FromBootstrap>, FrameError> {
    let (mut decoder, mut buffer, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
    let mut rest = bytes;
    let mut sizes = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        buffer.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        while let Some(frame) = decoder.decode(&mut buffer)? {
            found.push(frame);
        }
    }
    Ok(found)
}

#[test]
fn an_invocation_is_laid_out_as_the_bootstraps_read_it() {
    let invoke = Invoke {
        deadline_ms: 0x0102_0304_0506_0708,
        request_id: "id",
        invoked_function_arn: "arn",
        trace_id: "",
        client_context: "{}",
        cognito_identity: "",
        tenant_id: "t",
    };
    let mut whole = BytesMut::new();
    invoke.encode(b"[1]", &mut whole);
    let mut expected = vec![8, 7, 6, 5, 4, 3, 2, 1];
    expected.extend(string("id\0arn\0\0{}\0\0t"));
    expected.extend_from_slice(b"[1]");
    assert_eq!(whole, frame(1, &expected));
    let mut head = BytesMut::new();
    invoke.encode_head(3, &mut head);
    assert_eq!(head, whole[..whole.len() - 3]);
}

#[test]
fn a_string_cannot_pass_for_several() {
    let invoke = Invoke {
        deadline_ms: 0,
        request_id: "id",
        invoked_function_arn: "arn",
        trace_id: "Root=1\0{}",
        client_context: "",
        cognito_identity: "",
        tenant_id: "",
    };
    let mut whole = BytesMut::new();
    invoke.encode(b"", &mut whole);
    assert!(whole.ends_with(&string("id\0arn\0Root=1\0\0\0")));
}

#[test]
fn every_kind_of_frame_is_understood() {
    let failure = [string("Oops"), b"{}".to_vec()].concat();
    let bytes = [
        frame(1, b""),
        frame(2, &failure),
        frame(3, b"null"),
        frame(4, &failure),
        frame(5, b"text/plain"),
        frame(6, &[b'x'; PIECE]),
        frame(7, b""),
    ]
    .concat();
    let failure = Failure { error_type: "Oops".into(), document: Bytes::from_static(b"{}") };
    let expected = vec![
        FromBootstrap::Ready,
        FromBootstrap::InitError(failure.clone()),
        FromBootstrap::Response(Bytes::from_static(b"null")),
        FromBootstrap::Error(failure),
        FromBootstrap::Stream(Bytes::from_static(b"text/plain")),
        FromBootstrap::Piece(Bytes::from(vec![b'x'; PIECE])),
        FromBootstrap::End,
    ];
    assert_eq!(decode(&bytes, &[]), Ok(expected));
}

#[test]
fn what_is_no_frame_is_refused() {
    let long_string = frame(4, &[9, 0, 0, 0, b'x']);
    let short_string = frame(4, &[9, 0]);
    let not_utf8 = frame(2, &[1, 0, 0, 0, 0xff]);
    for (bytes, error) in [
        (vec![0, 0, 0, 0], FrameError::Empty),
        (frame(9, b""), FrameError::UnknownKind(9)),
        (frame(6, &[0; PIECE + 1]), FrameError::LongPiece(PIECE + 1)),
        (long_string, FrameError::BrokenString),
        (short_string, FrameError::BrokenString),
        (not_utf8, FrameError::BrokenString),
    ] {
        assert_eq!(decode(&bytes, &[]), Err(error));
    }
}

#[test]
fn the_largest_response_passes_and_a_larger_one_is_skipped_without_being_kept() {
    let largest = usize::try_from(SYNC_RESPONSE.as_bytes()).expect("fits");
    let bytes = frame(3, &vec![b'x'; largest]);
    let found = decode(&bytes, &[65_536]).expect("frames");
    assert!(matches!(&found[..], [FromBootstrap::Response(body)] if body.len() == largest));

    let over = usize::try_from(MOST).expect("fits") + 1;
    let bytes = [frame(3, &vec![b'x'; over]), frame(3, b"1")].concat();
    let found = decode(&bytes, &[65_536]).expect("frames");
    let size = u64::try_from(over).expect("fits") + 1;
    let small = FromBootstrap::Response(Bytes::from_static(b"1"));
    assert_eq!(found, [FromBootstrap::TooLarge(size), small]);
}

#[test]
fn bytes_that_are_only_announced_take_no_memory() {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    for announced in [u32::MAX, 6_000_000] {
        buffer.extend_from_slice(&announced.to_le_bytes());
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert!(buffer.capacity() < 1_024);
        (decoder, buffer) = (Decoder::default(), BytesMut::new());
    }
}

proptest! {
    #[test]
    fn frames_survive_any_cut(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
        pieces in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(3, body)).collect();
        let expected: Vec<_> =
            bodies.into_iter().map(|body| FromBootstrap::Response(body.into())).collect();
        prop_assert_eq!(decode(&bytes, &pieces), Ok(expected));
    }

    #[test]
    fn rubbish_never_panics_and_a_cut_changes_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        pieces in prop::collection::vec(1_usize..50, 1..20),
    ) {
        prop_assert_eq!(decode(&bytes, &pieces), decode(&bytes, &[]));
    }
}
