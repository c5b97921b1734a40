//! The rack's DNS over real sockets: zones of the plan, and names of others by an upstream server that each test plays.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use rack::{
    dns::{self, DnsConfig, Listen, Running},
    plan::PlanHandle,
    service::Serving,
};
use schema::service::Health;

const PLAN: &str = r#"{
    "subnets": [{"id": 1, "cidr": "127.77.50.0/24", "rack_address": "127.77.50.2"}],
    "zones": [{"name": "maas"}, {"name": "maas-internal", "ttl": 15}],
    "records": [
        {"name": "fox.maas", "a": ["10.77.0.5"]},
        {"name": "www.maas", "cname": "www.example.com"},
        {"name": "long.maas", "txt": ["a", "b", "c"]},
        {"name": "127-77-50-0--24.maas-internal", "ttl": 15, "a": ["127.77.50.2", "127.77.50.3"]}]}"#;

pub(crate) fn plan() -> PlanHandle {
    let mut plan: schema::plan::Plan = serde_json::from_str(PLAN).unwrap();
    let long = plan.records.iter_mut().find(|r| r.name.as_str() == "long.maas").unwrap();
    long.data = schema::dns::RecordData::Txt((0..40).map(|n| format!("{n}{}", "x".repeat(60))).collect());
    PlanHandle::new(plan)
}

pub(crate) fn serve(upstreams: &[SocketAddr]) -> (Running, SocketAddr) {
    let listen = Listen::At(vec!["127.77.50.2:0".parse().unwrap()]);
    let running =
        dns::start(DnsConfig { listen, upstreams: upstreams.to_vec(), ..DnsConfig::default() }, plan()).unwrap();
    let address = running.addresses()[0];
    (running, address)
}

/// A server that answers as `play` says: nothing, or packets to be sent one after the other.
fn upstream(play: impl Fn(Message) -> Vec<Vec<u8>> + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    played(play, false)
}

fn played(play: impl Fn(Message) -> Vec<Vec<u8>> + Send + 'static, rings: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut packet = [0; 2_048];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            let asked = Message::from_vec(&packet[..len]).unwrap();
            // Where nobody stands in a ring, its probe is of no interest.
            if asked.queries[0].name().to_ascii().contains("hostler-ring") && !rings {
                continue;
            }
            count.fetch_add(1, Ordering::SeqCst);
            for answer in play(asked) {
                socket.send_to(&answer, from).unwrap();
            }
        }
    });
    (address, asked)
}

fn reply(asked: &Message, code: ResponseCode, last: u8) -> Message {
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.response_code = code;
    answer.add_query(asked.queries[0].clone());
    let name = asked.queries[0].name().clone();
    if code == ResponseCode::NoError {
        answer.add_answer(Record::from_rdata(name, 300, RData::A(rdata::A::new(192, 0, 2, last))));
    } else {
        let example = Name::from_ascii("example.com.").unwrap();
        let soa = rdata::SOA::new(example.clone(), example.clone(), 1, 2, 3, 4, 60);
        answer.add_authority(Record::from_rdata(example, 60, RData::SOA(soa)));
    }
    answer
}

fn good(asked: Message) -> Vec<Vec<u8>> {
    let name = asked.queries[0].name().to_ascii();
    let code = if name.starts_with("none") { ResponseCode::NXDomain } else { ResponseCode::NoError };
    vec![reply(&asked, code, 1).to_vec().unwrap()]
}

fn question(name: &str, rtype: RecordType, id: u16) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message.to_vec().unwrap()
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.77.50.9:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client
}

fn heard(client: &UdpSocket) -> Message {
    let mut packet = [0; 2_048];
    let len = client.recv(&mut packet).unwrap();
    Message::from_vec(&packet[..len]).unwrap()
}

async fn ask(server: SocketAddr, name: &str) -> Message {
    let packet = question(name, RecordType::A, 9);
    let asked = tokio::task::spawn_blocking(move || {
        let client = client();
        client.send_to(&packet, server).unwrap();
        heard(&client)
    });
    asked.await.unwrap()
}

fn counted(running: &Running, what: &str) -> u64 {
    running.meter().counters().into_iter().find(|(name, _)| name == what).unwrap().1
}

fn first(message: &Message) -> String {
    message.answers.first().map(|r| r.data.to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_are_answered_with_no_server_upstream() {
    let silent: SocketAddr = "127.77.50.2:1".parse().unwrap();
    let (running, server) = serve(&[silent]);
    let fox = ask(server, "fox.maas.").await;
    assert_eq!((first(&fox).as_str(), fox.metadata.recursion_available), ("10.77.0.5", true));
    assert_eq!(ask(server, "none.maas.").await.metadata.response_code, ResponseCode::NXDomain);
    let turns: std::collections::BTreeSet<_> =
        [ask(server, "127-77-50-0--24.maas-internal.").await, ask(server, "127-77-50-0--24.maas-internal.").await]
            .iter()
            .map(first)
            .collect();
    assert_eq!(turns.len(), 2, "in rotation");
    assert_eq!(ask(server, "example.com.").await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(running.health(), Health::Degraded);
    Box::new(running).stop().await;
    UdpSocket::bind(server).expect("the port is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_others_are_kept_also_when_there_is_none() {
    let (upstream, asked) = upstream(good);
    let (running, server) = serve(&[upstream]);
    for name in ["www.example.com.", "none.example.com."] {
        let before = asked.load(Ordering::SeqCst);
        let one = ask(server, name).await;
        let two = ask(server, &name.to_uppercase()).await;
        assert_eq!((one.metadata.response_code, one.answers.len()), (two.metadata.response_code, two.answers.len()));
        assert_eq!(asked.load(Ordering::SeqCst), before + 1, "{name} is asked once");
        assert_eq!(two.queries[0].name().to_ascii(), name.to_uppercase());
    }
    assert_eq!((counted(&running, "forwarded"), counted(&running, "cached")), (2, 2));
    assert_eq!(running.health(), Health::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_questions_fly_once() {
    let (upstream, asked) = upstream(|asked| {
        std::thread::sleep(Duration::from_millis(300));
        good(asked)
    });
    let (_running, server) = serve(&[upstream]);
    let clients: Vec<_> = (0..10).map(|_| client()).collect();
    for (id, client) in clients.iter().enumerate() {
        client.send_to(&question("www.example.com.", RecordType::A, u16::try_from(id).unwrap()), server).unwrap();
    }
    let ids: Vec<_> = clients.iter().map(|c| heard(c).metadata.id).collect();
    assert_eq!(ids, (0..10).collect::<Vec<u16>>(), "each has its own number back");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_answers_are_not_believed() {
    let (upstream, _) = upstream(|asked| {
        let mut number = reply(&asked, ResponseCode::NoError, 66);
        number.metadata.id = asked.metadata.id.wrapping_add(1);
        let mut name = reply(&asked, ResponseCode::NoError, 66);
        name.queries = vec![Query::query(Name::from_ascii("bank.example.com.").unwrap(), RecordType::A)];
        // Somebody else knows number and question, but not the address that was asked.
        let other = UdpSocket::bind("127.0.0.2:0").unwrap();
        drop(other);
        let mut query = asked.clone();
        query.metadata.message_type = MessageType::Query;
        [number, name, query, reply(&asked, ResponseCode::NoError, 1)].iter().map(|m| m.to_vec().unwrap()).collect()
    });
    let (running, server) = serve(&[upstream]);
    assert_eq!(first(&ask(server, "www.example.com.").await), "192.0.2.1");
    assert_eq!(counted(&running, "forged"), 3);
    assert_eq!(first(&ask(server, "www.example.com.").await), "192.0.2.1", "nothing else was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_silent_or_refuses_is_passed_over() {
    let (silent, _) = upstream(|_| Vec::new());
    let (refuses, _) = upstream(|asked| vec![reply(&asked, ResponseCode::Refused, 0).to_vec().unwrap()]);
    let (answers, asked) = upstream(good);
    let (running, server) = serve(&[silent, refuses, answers]);
    assert_eq!(first(&ask(server, "www.example.com.").await), "192.0.2.1");
    assert_eq!(counted(&running, "timeouts"), 1);
    let before = actors::clock::tick();
    assert_eq!(first(&ask(server, "mail.example.com.").await), "192.0.2.1");
    assert!(before.elapsed() < Duration::from_secs(1), "who answered last is asked first");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_servers_is_broken_and_named() {
    let back: Arc<std::sync::OnceLock<SocketAddr>> = Arc::default();
    let ring = back.clone();
    // It asks whoever asked it: the rack.
    let play = move |asked: Message| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let name = asked.queries[0].name().to_ascii();
        socket.send_to(&question(&name, RecordType::A, 1), *ring.wait()).unwrap();
        let mut answer = heard(&socket);
        answer.metadata.id = asked.metadata.id;
        vec![answer.to_vec().unwrap()]
    };
    let (upstream, asked) = played(play, true);
    let (running, server) = serve(&[upstream]);
    back.set(server).unwrap();
    for _ in 0..400 {
        if counted(&running, "loops") > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(running.meter().last_error().unwrap().why.contains("ring"));
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(ask(server, "www.example.com.").await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(asked.load(Ordering::SeqCst), before, "it is not asked any more");
    assert_eq!(first(&ask(server, "fox.maas.").await), "10.77.0.5");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_alias_of_a_name_elsewhere_is_followed() {
    let (upstream, _) = upstream(good);
    let (_running, server) = serve(&[upstream]);
    let answer = ask(server, "www.maas.").await;
    let said: Vec<_> = answer.answers.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
    assert_eq!(said, ["www.maas. www.example.com.", "www.example.com. 192.0.2.1"]);
}

fn over_tcp(server: SocketAddr, packet: &[u8]) -> Option<Message> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&[&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], packet].concat()).ok()?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer).ok()?;
    Message::from_vec(&answer).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_tcp_clients_keep_nobody_waiting() {
    let (_running, server) = serve(&[]);
    let long = question("long.maas.", RecordType::TXT, 4);
    tokio::task::spawn_blocking(move || {
        let client = client();
        client.send_to(&long, server).unwrap();
        assert!(heard(&client).metadata.truncation);
        assert_eq!(over_tcp(server, &long).unwrap().answers.len(), 40);
        let slow: Vec<_> = (0..16)
            .map(|_| {
                let mut stream = TcpStream::connect(server).unwrap();
                stream.write_all(&[0, 40, 1]).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                stream
            })
            .collect();
        let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        other.bind(&"127.77.50.8:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        other.connect(&server.into()).unwrap();
        let mut other: TcpStream = other.into();
        other.write_all(&[&u16::try_from(long.len()).unwrap().to_be_bytes()[..], &long].concat()).unwrap();
        let mut len = [0; 2];
        other.read_exact(&mut len).expect("a client of another address is served");
        client.send_to(&question("fox.maas.", RecordType::A, 5), server).unwrap();
        assert_eq!(first(&heard(&client)), "10.77.0.5");
        // The slow ones are closed by the server, each within its bound.
        for mut stream in slow {
            assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
        }
    })
    .await
    .unwrap();
}
