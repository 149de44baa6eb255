//! Whatever bytes come and however they are cut: no panic, the same blocks, and within the bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node_agent_ami::{Block, Decoder, Event, Limits, OverBound};

const LIMITS: Limits = Limits { line_bytes_max: 128, headers_max: 16, block_bytes_max: 512 };

fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<Result<Block, OverBound>> {
    let mut decoder = Decoder::new(LIMITS);
    let mut blocks = Vec::new();
    for part in parts {
        decoder.push(part);
        while let Some(block) = decoder.next_block().transpose() {
            blocks.push(block);
        }
    }
    blocks
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let blocks = decode(std::iter::once(bytes));
    assert_eq!(blocks, decode(bytes.chunks(usize::from(cut) + 1)));
    for block in blocks.into_iter().flatten() {
        let Block::Message(message) = block else { continue };
        assert!(message.headers().len() + message.malformed_lines() <= LIMITS.headers_max);
        let encoded = message.encode();
        if message.malformed_lines() == 0 {
            // Wider bounds: a line without the blank after its colon grows by one.
            let mut decoder = Decoder::past_banner(Limits::default());
            decoder.push(&encoded);
            assert_eq!(decoder.next_block(), Ok(Some(Block::Message(message.clone()))));
        }
        let _ = Event::read(message);
    }
});
