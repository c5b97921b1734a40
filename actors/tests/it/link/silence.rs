//! A side that fell silent is gone within the limit, whatever the other still says to it; a region that was killed and is back says so.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actors::{
    clock,
    core::TraceId,
    link::{ca::Ca, server::Incoming},
};
use schema::{id::ReportSeq, messages::link::ToRack};
use tokio::net::UdpSocket;

use super::{Rack, Region, incoming, loopback, timing};

/// A cable between a rack and its region that can be cut: then nothing passes, and nobody is told. It can be put into another region, too.
struct Cable {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    end: Arc<Mutex<SocketAddr>>,
}

impl Cable {
    async fn to(region: SocketAddr) -> Self {
        let (near, far) = (UdpSocket::bind(loopback()).await.unwrap(), UdpSocket::bind(loopback()).await.unwrap());
        let (address, cut) = (near.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let (whole, end) = (cut.clone(), Arc::new(Mutex::new(region)));
        let there = end.clone();
        tokio::spawn(async move {
            let (mut up, mut down) = ([0; 2048], [0; 2048]);
            let mut rack = None;
            loop {
                tokio::select! {
                    Ok((n, from)) = near.recv_from(&mut up) => {
                        rack = Some(from);
                        if !whole.load(Ordering::Relaxed) {
                            let region = *there.lock().unwrap();
                            far.send_to(&up[..n], region).await.unwrap();
                        }
                    }
                    Ok((n, from)) = far.recv_from(&mut down) => {
                        let passes = from == *there.lock().unwrap() && !whole.load(Ordering::Relaxed);
                        if let (Some(rack), true) = (rack, passes) {
                            near.send_to(&down[..n], rack).await.unwrap();
                        }
                    }
                }
            }
        });
        Self { address, cut, end }
    }
}

#[tokio::test]
async fn a_silent_rack_is_gone_in_time_though_the_region_has_things_to_say() {
    let mut region = Region::new();
    let identity = region.enrol().await;
    let cable = Cable::to(region.server.address()).await;
    let mut rack = Rack::start(&cable.address.to_string(), &identity);
    rack.up().await;
    let mut seen = region.next().await;

    cable.cut.store(true, Ordering::Relaxed);
    let since = clock::tick();
    tokio::time::sleep(timing().idle * 3 / 4).await; // QUIC's idle timer would begin anew with this word.
    seen.sender.try_send(&ToRack::Ack { through: ReportSeq(1) }, TraceId(1)).unwrap();
    let Incoming::Closed { why } = incoming(&mut seen).await else { panic!() };
    assert!(since.elapsed() < timing().idle * 3 / 2, "after {:?}: {why}", since.elapsed());
    assert!(why.contains("no answer"), "{why}");
    let (why, _) = rack.down().await;
    assert!(why.contains("no answer"), "{why}");
}

/// The old region's end of the cable hears nothing more and says nothing more: as if it had been killed.
#[tokio::test]
async fn a_region_that_was_killed_and_is_back_tells_racks_at_once_that_it_knows_their_connections_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let ca = || Ca::open_or_create(dir.path(), clock::now()).unwrap();
    let mut killed = Region::start(ca(), Arc::default(), loopback());
    let identity = killed.enrol().await;
    let cable = Cable::to(killed.server.address()).await;
    let mut rack = Rack::start(&cable.address.to_string(), &identity);
    rack.up().await;
    killed.next().await;

    let mut back = Region::start(ca(), killed.keeper.clone(), loopback());
    let since = clock::tick();
    *cable.end.lock().unwrap() = back.server.address();
    let (why, remedy) = rack.down().await;
    assert!(why.contains("no longer knows this connection"), "{why}; {remedy}");
    rack.up().await;
    back.next().await;
    // By its next sign of life at the latest, and well before it would have taken the region for gone.
    assert!(since.elapsed() < timing().keep_alive + Duration::from_secs(2), "after {:?}", since.elapsed());
}
