//! `/metrics` of a rack: a listener of its own, on loopback unless it is set otherwise, so that machines never read it.
//! It answers this one path and nothing else, one request a connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actors::{
    metrics::{CONTENT_TYPE, Page},
    shell::Registry,
};
use schema::service::Health;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use crate::{config::Service, services::Services, state::State};

/// Bytes of a request's head at most, and how long it and its answer may take.
const HEAD: usize = 8 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at once.
const MOST: usize = 8;

/// What is measured. Cloned freely.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) services: Services,
    pub(crate) state: State,
}

impl Metrics {
    /// The page.
    pub(crate) fn page(&self) -> String {
        let mut page = Page::default();
        let version = [("version", env!("CARGO_PKG_VERSION")), ("role", "rack")];
        page.family("hostler_build_info").sample(&version, 1.0);
        page.actors(&self.registry);
        let statuses = self.services.statuses();
        page.family("hostler_service_up");
        for status in &statuses {
            let up = match status.health {
                Health::Running => 1.0,
                Health::Degraded => 0.5,
                Health::Dead => 0.0,
                Health::Off => continue,
            };
            page.sample(&[("rack", ""), ("service", &status.service)], up);
        }
        page.family("hostler_service_events_total");
        for status in &statuses {
            for (event, count) in &status.counters {
                page.sample(&[("service", &status.service), ("event", event)], *count as f64);
            }
        }
        page.family("hostler_dhcp_latency_seconds");
        if let Some(spread) = self.services.latency(Service::Dhcp) {
            page.histogram(&[], &spread);
        }
        page.family("hostler_service_restarts_total");
        for status in &statuses {
            page.sample(&[("service", &status.service)], f64::from(status.restarts));
        }
        let waiting = self.state.outbox().borrow().waiting;
        page.family("hostler_outbox_reports").sample(&[], waiting as f64);
        page.text()
    }

    /// Serves it there. A port that cannot be had is said in the log; the rack goes on without.
    pub(crate) async fn serve(self, listen: SocketAddr) -> Option<(SocketAddr, JoinHandle<()>)> {
        let bound = TcpListener::bind(listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Err(error) => {
                let remedy = "set metrics.listen in rack.toml to a free ADDRESS:PORT, or to \"off\"";
                tracing::warn!(%listen, %error, remedy, "metrics are not served");
                None
            }
            Ok((address, listener)) => {
                tracing::info!(%address, "metrics are served");
                Some((address, tokio::spawn(accept(self, listener))))
            }
        }
    }
}

async fn accept(metrics: Metrics, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = metrics.clone();
                tokio::spawn(async move {
                    timeout(PATIENCE, answer(&metrics, stream)).await.ok(); // Who reads too slowly asks again.
                    drop(place);
                });
            }
            // The system has no file for it now.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(metrics: &Metrics, mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::with_capacity(1_024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let (status, kind, body) = match words.as_slice() {
        [b"GET", path, _] if path.split(|byte| *byte == b'?').next() == Some(b"/metrics") => {
            ("200 OK", CONTENT_TYPE, metrics.page())
        }
        [b"GET", ..] => ("404 Not Found", "text/plain", "Only /metrics is here.\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "Only GET is answered here.\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
