//! Arbitrary messages for tests of decoders: mostly well-formed protobuf, so that what is behind the
//! protobuf decoder is reached too, with fields of the lengths that ids and names have, and others.

use proptest::prelude::*;
use prost::Message;

#[derive(Clone, Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
    Fixed(u64),
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn encode(fields: Vec<(u64, Field)>) -> Vec<u8> {
    let mut to = Vec::new();
    for (tag, field) in fields {
        match field {
            Field::Number(value) => {
                varint(tag << 3, &mut to);
                varint(value, &mut to);
            }
            Field::Bytes(bytes) => {
                varint(tag << 3 | 2, &mut to);
                varint(bytes.len() as u64, &mut to);
                to.extend(bytes);
            }
            Field::Fixed(value) => {
                varint(tag << 3 | 1, &mut to);
                to.extend(value.to_le_bytes());
            }
        }
    }
    to
}

/// Bytes as they may come in a message.
pub(crate) fn message_bytes() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(0), Just(8), Just(12), Just(31), Just(32), Just(64), 0..300usize];
    let plain = length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    let text = "[a-z0-9.:-]{0,40}".prop_map(String::into_bytes);
    let leaf = prop_oneof![plain, text];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let number = prop_oneof![0..5u64, 100..1_000u64, Just(256 * 1024), any::<u64>()];
        let field = prop_oneof![
            3 => number.prop_map(Field::Number),
            4 => inner.prop_map(Field::Bytes),
            1 => any::<u64>().prop_map(Field::Fixed),
        ];
        prop::collection::vec((1..10u64, field), 0..8).prop_map(encode)
    })
}

/// The message that the bytes are, if they are one.
pub(crate) fn decoded<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}
