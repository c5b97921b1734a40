//! A side that fell silent is gone within the limit, whatever the other still says to it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actors::{clock, core::TraceId, link::server::Incoming};
use schema::{id::ReportSeq, messages::link::ToRack};
use tokio::net::UdpSocket;

use super::{Rack, Region, incoming, loopback, timing};

/// A cable between a rack and its region that can be cut: then nothing passes, and nobody is told.
struct Cable {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Cable {
    async fn to(region: SocketAddr) -> Self {
        let (near, far) = (UdpSocket::bind(loopback()).await.unwrap(), UdpSocket::bind(loopback()).await.unwrap());
        let (address, cut) = (near.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let whole = cut.clone();
        tokio::spawn(async move {
            let (mut up, mut down) = ([0; 2048], [0; 2048]);
            let mut rack = None;
            loop {
                tokio::select! {
                    Ok((n, from)) = near.recv_from(&mut up) => {
                        rack = Some(from);
                        if !whole.load(Ordering::Relaxed) {
                            far.send_to(&up[..n], region).await.unwrap();
                        }
                    }
                    Ok(n) = far.recv(&mut down) => if let (Some(rack), false) = (rack, whole.load(Ordering::Relaxed)) {
                        near.send_to(&down[..n], rack).await.unwrap();
                    }
                }
            }
        });
        Self { address, cut }
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
