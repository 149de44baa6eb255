//! The codec on its own: what was written is read again, however the bytes are cut, and no bytes whatever
//! make it fail or grow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use node_agent_ami::{Action, Block, Decoder, InvalidValue, Limits, Message, OverBound};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

mod corpus;

fn decode(bytes: &[u8], cuts: &[usize]) -> Vec<Result<Block, OverBound>> {
    let mut decoder = Decoder::past_banner(Limits::default());
    let mut blocks = Vec::new();
    let mut rest = bytes;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let (head, tail) = rest.split_at(cut.min(rest.len()));
        rest = tail;
        decoder.push(head);
        loop {
            match decoder.next_block() {
                Ok(Some(block)) => blocks.push(Ok(block)),
                Ok(None) => break,
                Err(bound) => blocks.push(Err(bound)),
            }
        }
    }
    blocks
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>().prop_filter("name", |b| !b"\r\n:".contains(b)), 1..20)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>().prop_filter("value", |b| !b"\r\n".contains(b)), 0..60)
}

fn message() -> impl Strategy<Value = Message> {
    proptest::collection::vec((name(), value()), 1..12).prop_map(Message::from_pairs)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_the_same(messages in proptest::collection::vec(message(), 1..5)) {
        let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
        let expected: Vec<_> = messages.into_iter().map(|message| Ok(Block::Message(message))).collect();
        prop_assert_eq!(decode(&bytes, &[]), expected);
    }

    #[test]
    fn any_split_gives_the_same_messages(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), any::<u8>()], 0..400),
        cuts in proptest::collection::vec(0_usize..40, 0..40),
    ) {
        prop_assert_eq!(decode(&bytes, &cuts), decode(&bytes, &[]));
    }

    #[test]
    fn no_value_reaches_the_wire_as_a_second_header(value in proptest::collection::vec(any::<u8>(), 0..80)) {
        let breaks = value.iter().any(|b| [b'\r', b'\n', 0].contains(b));
        let action = Action::new("DBGet").unwrap().header("Key", &value);
        prop_assert_eq!(action.is_err(), breaks);
        if let Err(error) = action {
            let names_field = matches!(error, InvalidValue::LineBreak { ref field, .. } if field == "Key");
            prop_assert!(names_field);
        }
    }
}

#[test]
fn a_bare_line_feed_ends_a_line_too() {
    let blocks = decode(b"Event: X\nA: 1\n\nEvent: Y\r\n\r\n", &[]);
    let expected = [Message::from_pairs([("Event", "X"), ("A", "1")]), Message::from_pairs([("Event", "Y")])];
    assert_eq!(blocks, expected.map(|message| Ok(Block::Message(message))));
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let blocks = decode(b"Event: X\r\nCallerIDName: \xff\xfe\r\n\r\n", &[3]);
    let Ok(Block::Message(message)) = &blocks[0] else { panic!("{blocks:?}") };
    assert_eq!(message.get("calleridname"), Some(&b"\xff\xfe"[..]));
    assert_eq!(message.text("CallerIDName").unwrap(), "\u{fffd}\u{fffd}");
}

#[test]
fn every_bound_is_named_and_what_follows_is_read() {
    let limits = Limits::default();
    let long_line = vec![b'x'; limits.line_bytes_max + 1];
    let many: Vec<u8> = b"A: 1\r\n".repeat(limits.headers_max + 1);
    let mut line = b"A: ".to_vec();
    line.extend(vec![b'y'; limits.line_bytes_max - 3]);
    line.extend(b"\r\n");
    let large = line.repeat(limits.block_bytes_max / limits.line_bytes_max + 1);
    for (block, bound) in [
        (long_line, OverBound::Line(limits.line_bytes_max)),
        (many, OverBound::Headers(limits.headers_max)),
        (large, OverBound::Block(limits.block_bytes_max)),
    ] {
        let mut bytes = b"Event: X\r\n".to_vec();
        bytes.extend(block);
        bytes.extend(b"\r\n\r\nEvent: Y\r\n\r\n");
        let next = Ok(Block::Message(Message::from_pairs([("Event", "Y")])));
        assert_eq!(decode(&bytes, &[]), [Err(bound), next.clone()]);
        assert_eq!(decode(&bytes, &vec![7; bytes.len() / 7]), [Err(bound), next]);
    }
}

#[test]
fn a_line_that_never_ends_takes_no_memory() {
    let mut decoder = Decoder::past_banner(Limits::default());
    for _ in 0..4096 {
        decoder.push(&[b'z'; 4096]);
        assert_eq!(decoder.next_block(), Ok(None));
    }
    decoder.push(b"\r\n\r\nEvent: Y\r\n\r\n");
    assert!(matches!(decoder.next_block(), Err(OverBound::Line(_))));
    assert!(matches!(decoder.next_block(), Ok(Some(Block::Message(_)))));
}

/// What the fuzz target does, on a stable compiler: noise, and recordings with bytes changed.
#[test]
fn noise_and_mutated_recordings_never_break_the_decoder() {
    let seed = 0x5eed_0001_u64;
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    let recordings = corpus::all();
    for round in 0..400 {
        let mut bytes = if round % 4 == 0 {
            let mut noise = vec![0; rng.random_range(0..2000)];
            rng.fill_bytes(&mut noise);
            noise
        } else {
            recordings[rng.random_range(0..recordings.len())].1.clone()
        };
        for _ in 0..rng.random_range(0..20) {
            if bytes.is_empty() {
                break;
            }
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = *b"\r\n: \0E".get(rng.random_range(0..6)).unwrap(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.random()),
            }
        }
        let cuts: Vec<usize> = (0..50).map(|_| rng.random_range(0..100)).collect();
        let blocks = decode(&bytes, &cuts);
        assert_eq!(blocks, decode(&bytes, &[]), "seed {seed:#x}, round {round}");
        for block in blocks.into_iter().flatten() {
            let Block::Message(message) = block else { panic!("no banner was expected") };
            let _ = node_agent_ami::Event::read(message);
        }
    }
}
