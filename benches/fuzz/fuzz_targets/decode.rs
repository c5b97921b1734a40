//! Any bytes as a frame of any stream: an error, or a message that survives being said again. Seeds: `schema/tests/golden.txt`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::{
    codec::{self, Deframer, Message, PREFIX},
    messages::{
        enrol::{EnrolAnswer, EnrolAsk},
        link::{BulkAnswer, BulkHeader, FromRack, ToRack},
    },
};

fn one<M: Message + PartialEq>(bytes: &[u8]) {
    if let Ok((envelope, message)) = codec::decode::<M>(bytes)
        && let Ok(again) = codec::encode(&message, envelope.parent, envelope.sequence)
    {
        let back = codec::decode::<M>(&again[PREFIX..]).map(|(_, back)| back);
        assert!(back.is_ok_and(|back| back == message));
    }
}

fuzz_target!(|bytes: &[u8]| {
    one::<ToRack>(bytes);
    one::<FromRack>(bytes);
    one::<BulkHeader>(bytes);
    one::<BulkAnswer>(bytes);
    one::<EnrolAsk>(bytes);
    one::<EnrolAnswer>(bytes);
    // And as a stream in two pieces.
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    let mut deframer = Deframer::default();
    for part in [head, tail] {
        deframer.push(part);
        while let Ok(Some(_)) = deframer.take::<FromRack>() {}
    }
});
