//! The machines' lines to an external server (`remote_syslog`): TCP, RFC 5424, counted by octets (RFC 6587), connected anew for ever.
//! While it is down, lines wait within a bound; what does not fit is lost, counted, and said in line when it is back.

use std::{net::SocketAddr, time::Duration};

use actors::link::client::BackOff;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::queue::Queue;
use crate::{places::LOOK_AGAIN, plan::PlanHandle, service::Meter};

/// Bytes of lines in one write.
const WRITE: usize = 64 * 1_024;
/// How long connecting, and one write, may take.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Forwards until dropped; does nothing while the plan names no server.
pub async fn forward(queue: Queue, plan: PlanHandle, meter: Meter) {
    let mut pauses = BackOff::new(AGAIN.0, AGAIN.1);
    loop {
        let Some(server) = plan.load().plan.settings.remote_syslog else {
            sleep(LOOK_AGAIN).await;
            continue;
        };
        let why = match connect(server).await {
            Ok(stream) => {
                pauses.reset();
                match converse(stream, server, &queue, &plan, &meter).await {
                    Some(why) => why,
                    None => continue,
                }
            }
            Err(why) => why,
        };
        let remedy =
            "check remote_syslog and that server; lines wait here within syslog.mebibytes and are sent when it is back";
        meter.complain("remote", format!("the remote syslog server {server} takes no lines: {why}"), remedy);
        sleep(pauses.pause(rand::random())).await;
    }
}

async fn connect(server: SocketAddr) -> Result<TcpStream, String> {
    match timeout(PATIENCE, TcpStream::connect(server)).await {
        Ok(Ok(stream)) => {
            let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(30));
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).ok(); // Then its loss is noticed by writing.
            Ok(stream)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it does not answer".into()),
    }
}

/// Until the connection breaks (why), or the plan names another server (`None`).
async fn converse(
    stream: TcpStream,
    server: SocketAddr,
    queue: &Queue,
    plan: &PlanHandle,
    meter: &Meter,
) -> Option<String> {
    let (mut from, mut to) = stream.into_split();
    let mut nothing = [0; 64];
    loop {
        let lines = tokio::select! {
            lines = queue.take(WRITE) => lines,
            // A syslog server says nothing; that it closes is all that is read.
            read = from.read(&mut nothing) => match read {
                Ok(0) => return Some("it closed the connection".into()),
                Ok(_) => continue,
                Err(error) => return Some(error.to_string()),
            },
            () = sleep(LOOK_AGAIN) => {
                if plan.load().plan.settings.remote_syslog != Some(server) {
                    return None;
                }
                continue;
            }
        };
        let (mut out, mut text) = (Vec::with_capacity(WRITE + WRITE / 8), String::new());
        for line in &lines {
            text.clear();
            line.write(&mut text);
            out.extend_from_slice(format!("{} ", text.len()).as_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        let why = match timeout(PATIENCE, to.write_all(&out)).await {
            Ok(Ok(())) => {
                meter.add("forwarded", lines.len() as u64);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not read".into(),
        };
        // Some of them may have arrived. Better a line twice than one never.
        queue.give_back(lines);
        return Some(why);
    }
}
