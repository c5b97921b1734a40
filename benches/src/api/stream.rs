//! Server-sent events as a client reads them: one request whose answer does not end.

use std::{net::SocketAddrV4, pin::pin};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

use super::OWN;
use crate::yard::{Trouble, trouble};

/// Says which stream it was.
fn at<E: std::fmt::Display>(path: &str) -> impl FnOnce(E) -> Trouble {
    trouble(format!("the stream {path}"))
}

/// GET of a stream: each piece as it comes, until the server ends it.
///
/// # Errors
/// What ended it, or that it did not begin.
pub async fn listen(
    to: SocketAddrV4,
    path: &str,
    headers: &[(&str, String)],
    mut heard: impl FnMut(&[u8]),
) -> Result<(), Trouble> {
    let socket = TcpSocket::new_v4().map_err(at(path))?;
    socket.bind((OWN, 0).into()).map_err(at(path))?;
    let stream = socket.connect(to.into()).await.map_err(at(path))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(at(path))?;
    let mut request = Request::get(path).header("Host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(at(path))?;
    let reading = async {
        let answer = sender.send_request(request).await.map_err(at(path))?;
        if !answer.status().is_success() {
            return Err(Trouble(format!("the stream {path} was answered {}", answer.status())));
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame.map_err(at(path))?.into_data() {
                heard(&piece);
            }
        }
        Ok(())
    };
    // The connection is driven by this task alone, so that it ends with it.
    let mut connection = pin!(connection);
    let mut reading = pin!(reading);
    tokio::select! {
        done = &mut reading => done,
        broken = &mut connection => match broken {
            Ok(()) => reading.await,
            Err(error) => Err(at(path)(error)),
        },
    }
}
