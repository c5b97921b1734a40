//! Answers of other servers: what is believed of them, how long they are kept, and how they are given out.

use actors::dns::{
    Query, Transport,
    reply::{NoReply, Reply},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, rdata},
};
use proptest::prelude::*;

use super::query;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn upstream(question: &[u8], answers: &[(u32, RData)], soa: Option<(u32, u32)>, rcode: ResponseCode) -> Message {
    let asked = Message::from_vec(question).unwrap();
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.response_code = rcode;
    message.metadata.authentic_data = true;
    message.add_query(asked.queries[0].clone());
    for (ttl, data) in answers {
        message.add_answer(Record::from_rdata(asked.queries[0].name().clone(), *ttl, data.clone()));
    }
    if let Some((ttl, minimum)) = soa {
        let soa = rdata::SOA::new(name("ns.example.com."), name("x.example.com."), 1, 2, 3, 4, minimum);
        message.add_authority(Record::from_rdata(name("example.com."), ttl, RData::SOA(soa)));
    }
    let mut edns = Edns::new();
    edns.set_max_payload(4_096);
    message.set_edns(edns);
    message
}

fn address() -> RData {
    RData::A(rdata::A::new(192, 0, 2, 1))
}

fn read(packet: &[u8], asked: &[u8]) -> Result<Reply, NoReply> {
    Reply::read(packet, 7, Query::read(asked).unwrap().question(), false)
}

#[test]
fn an_answer_is_kept_as_long_as_its_shortest_record_and_given_with_its_age_off() {
    let asked = query("www.example.com", 1, 1, 1_232);
    let packet = upstream(&asked, &[(300, address()), (100, address())], None, ResponseCode::NoError).to_vec().unwrap();
    let reply = read(&packet, &asked).unwrap();
    assert_eq!((reply.lifetime, reply.rcode), (100, 0));
    for (size, opt) in [(0, false), (1_232, true)] {
        let mut own = query("WWW.example.COM", 1, 1, size);
        own[1] = 99;
        let own = Query::read(&own).unwrap();
        let mut out = Vec::new();
        reply.give(&own, 40, Transport::Udp, &mut out);
        let given = Message::from_vec(&out).unwrap();
        assert_eq!((given.metadata.id, given.edns.is_some(), given.metadata.recursion_available), (99, opt, true));
        assert_eq!(given.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), [260, 60]);
        assert!(!given.metadata.authentic_data, "AD is for those who ask for it");
        assert_eq!(&out[12..28], b"\x03WWW\x07example\x03COM");
    }
}

#[test]
fn a_no_is_kept_by_its_soa_and_not_without() {
    let asked = query("none.example.com", 1, 1, 0);
    let lifetime = |answers: &[(u32, RData)], soa, rcode| {
        read(&upstream(&asked, answers, soa, rcode).to_vec().unwrap(), &asked).unwrap().lifetime
    };
    assert_eq!(lifetime(&[], Some((60, 300)), ResponseCode::NXDomain), 60);
    assert_eq!(lifetime(&[], Some((600, 30)), ResponseCode::NoError), 30);
    assert_eq!(lifetime(&[], Some((90_000, 90_000)), ResponseCode::NXDomain), 3_600);
    assert_eq!(lifetime(&[], None, ResponseCode::NXDomain), 0);
    assert_eq!(lifetime(&[], None, ResponseCode::ServFail), 0);
    let alias = RData::CNAME(rdata::CNAME(name("other.example.com.")));
    assert_eq!(lifetime(&[(20, alias.clone())], Some((60, 60)), ResponseCode::NoError), 20);
    assert_eq!(lifetime(&[(20, alias)], None, ResponseCode::NoError), 0);
    assert_eq!(lifetime(&[(u32::MAX, address())], None, ResponseCode::NoError), 0, "RFC 2181 section 8");
}

#[test]
fn another_number_question_or_letter_is_no_answer() {
    let asked = query("wWw.example.com", 1, 1, 0);
    let question = Query::read(&asked).unwrap().question().to_vec();
    let packet = upstream(&asked, &[(60, address())], None, ResponseCode::NoError).to_vec().unwrap();
    let lower = upstream(&query("www.example.com", 1, 1, 0), &[], None, ResponseCode::NoError).to_vec().unwrap();
    assert!(Reply::read(&packet, 7, &question, true).is_ok());
    assert_eq!(Reply::read(&packet, 8, &question, true), Err(NoReply::Other));
    assert_eq!(Reply::read(&lower, 7, &question, true), Err(NoReply::Other));
    assert!(Reply::read(&lower, 7, &question, false).is_ok());
    for other in [query("www.example.org", 1, 1, 0), query("www.example.com", 28, 1, 0), query("example.com", 1, 1, 0)]
    {
        let question = Query::read(&other).unwrap().question().to_vec();
        assert_eq!(Reply::read(&packet, 7, &question, false), Err(NoReply::Other));
    }
    assert_eq!(Reply::read(&asked, 7, &question, false), Err(NoReply::Other), "a query is no answer");
    assert_eq!(Reply::read(&packet[..packet.len() - 20], 7, &question, false), Err(NoReply::Malformed));
}

#[test]
fn an_answer_that_a_client_cannot_take_is_cut() {
    let asked = query("big.example.com", 16, 1, 1_232);
    let text = RData::TXT(rdata::TXT::new(vec!["z".repeat(200)]));
    let packet = upstream(&asked, &vec![(60, text); 5], None, ResponseCode::NoError).to_vec().unwrap();
    let reply = read(&packet, &asked).unwrap();
    let mut out = Vec::new();
    let plain = query("big.example.com", 16, 1, 0);
    reply.give(&Query::read(&plain).unwrap(), 0, Transport::Udp, &mut out);
    let cut = Message::from_vec(&out).unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty() && out.len() < 512);
    reply.give(&Query::read(&plain).unwrap(), 0, Transport::Tcp, &mut out);
    assert_eq!(Message::from_vec(&out).unwrap().answers.len(), 5);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_answer_or_one_that_can_be_given(tail in proptest::collection::vec(any::<u8>(), 0..300), counts: [u8; 3], age: u32) {
        let asked = query("www.example.com", 1, 1, 1_232);
        let parsed = Query::read(&asked).unwrap();
        let mut packet = vec![0, 7, 0x81, 0x80, 0, 1, 0, counts[0] % 4, 0, counts[1] % 4, 0, counts[2] % 4];
        packet.extend(parsed.question());
        packet.extend(&tail);
        if let Ok(reply) = Reply::read(&packet, 7, parsed.question(), false) {
            let mut out = Vec::new();
            reply.give(&parsed, age, Transport::Udp, &mut out);
            prop_assert!(out.len() >= 12);
        }
        if let Ok(reply) = Reply::read(&tail, 7, parsed.question(), false) {
            prop_assert!(reply.packet().len() >= 12);
        }
    }
}
