//! What no Hostler sends: garbage on the port, on streams, and clients that say nothing. The service goes on.

use std::{
    net::UdpSocket,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use schema::codec::{self, TraceParent};
use schema::messages::link::{FromRack, ToRack};

use super::{Rack, Region, incoming};
use actors::link::server::Incoming;

/// A client of our own making: any certificate, any ALPN, any bytes.
async fn connect(
    region: &Region,
    identity: Option<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>)>,
    alpn: &[u8],
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(region.server.ca().certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key.into()).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client(super::loopback()).unwrap();
    let connection = endpoint.connect_with(config, region.server.address(), "region.hostler").unwrap().await?;
    Ok((endpoint, connection))
}

/// A pinned certificate with its key.
fn pinned(region: &Region, rack: &str) -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let hour = Duration::from_secs(3_600);
    let issued = region.server.ca().issue(request.der(), "rack-9", actors::clock::now(), hour).unwrap();
    region.keeper.pin(issued.fingerprint, rack);
    (issued.certificate, key.serialize_der().into())
}

/// The region still does its work for a rack that behaves.
async fn still_serves(region: &mut Region) {
    let identity = {
        let token = region.token(77);
        actors::link::enrol::enrol(&region.address(), &token, "rack-1", "0.1.0").await.unwrap()
    };
    let mut rack = Rack::start(&region.address(), &identity);
    assert_eq!(rack.up().await.rack, identity.rack);
    while region.next().await.rack != identity.rack {}
    rack.client.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_stops_nothing() {
    let mut region = Region::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut seed = 7u64;
    for n in 0..3_000usize {
        let packet: Vec<u8> = (0..n % 1_400)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        let mut long = packet.clone();
        if let Some(first) = long.first_mut() {
            *first |= 0xc0; // Looks like a QUIC long header.
        }
        socket.send_to(&packet, region.server.address()).ok();
        socket.send_to(&long, region.server.address()).ok();
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    still_serves(&mut region).await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_so() {
    let mut region = Region::new();
    let (_endpoint, connection) = connect(&region, None, b"hostler/1").await.unwrap();
    let (_send, mut recv) = connection.accept_bi().await.unwrap();
    let frame = recv.read_to_end(10_000).await.unwrap();
    let (_, refused) = codec::decode::<ToRack>(&frame[codec::PREFIX..]).unwrap();
    assert!(
        matches!(refused, ToRack::Refused { why, remedy } if why.contains("no certificate") && remedy.contains("enrol"))
    );
    connection.close(0u32.into(), b"read it");
    region.keeper.reason("no certificate").await;
    still_serves(&mut region).await;
}

#[tokio::test]
async fn a_self_made_certificate_and_a_foreign_protocol_do_not_pass() {
    let mut region = Region::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let own = (own.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()));
    let (_endpoint, connection) = connect(&region, Some(own), b"hostler/1").await.unwrap();
    region.keeper.reason("made by another region's CA").await;
    connection.close(0u32.into(), b"");
    assert!(connect(&region, None, b"h3").await.is_err());
    still_serves(&mut region).await;
}

#[tokio::test]
async fn garbage_frames_end_their_connection_and_no_other() {
    let mut region = Region::new();
    let identity = region.enrol().await;
    let mut good = Rack::start(&region.address(), &identity);
    good.up().await;
    let mut seen = region.next().await;
    let plan = codec::encode(&ToRack::SendHello, TraceParent::default(), 1).unwrap();
    let junk: [&[u8]; 5] = [b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 0], &[0, 0, 0, 2, 9, 9], &[0xff; 64], &plan];
    for (n, bytes) in junk.iter().enumerate() {
        let identity = pinned(&region, "bad777");
        let (_endpoint, connection) = connect(&region, Some(identity), b"hostler/1").await.unwrap();
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        let mut bad = region.next().await;
        send.write_all(bytes).await.unwrap();
        let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else { panic!("{bytes:?}") };
        assert_eq!(u64::from(close.error_code), 3, "{bytes:?}");
        let Incoming::Closed { why } = incoming(&mut bad).await else { panic!() };
        assert_eq!(why, String::from_utf8_lossy(&close.reason));
        assert_eq!(region.server.counters().bad_frames.load(Ordering::Relaxed), n as u64 + 1);
    }
    good.client.send(0, &FromRack::Goodbye, actors::core::TraceId(5)).await.unwrap();
    assert!(matches!(incoming(&mut seen).await, Incoming::Message(_, FromRack::Goodbye)));
    still_serves(&mut region).await;
}

#[tokio::test]
async fn garbage_on_bulk_and_enrolment_streams_costs_only_the_stream() {
    let mut region = Region::new();
    let (_endpoint, connection) = connect(&region, Some(pinned(&region, "bad777")), b"hostler/1").await.unwrap();
    let _control = connection.accept_bi().await.unwrap();
    let _seen = region.next().await;
    for _ in 0..100 {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&[0, 0, 0, 3, 1, 2, 3]).await.unwrap();
        assert!(recv.read_to_end(100).await.is_ok_and(|r| r.is_empty()));
    }
    assert!(connection.close_reason().is_none());
    let (_endpoint, enrolling) = connect(&region, None, b"hostler-enrol/1").await.unwrap();
    let (mut send, _recv) = enrolling.open_bi().await.unwrap();
    send.write_all(&[0xff; 100]).await.unwrap();
    region.keeper.reason("no enrolment came").await;
    still_serves(&mut region).await;
}
