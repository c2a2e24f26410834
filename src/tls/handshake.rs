//! The handshake of one connection.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use rustls::{Error, ServerConnection};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::server::Server;
use super::socket::Socket;

/// RFC 6066 §3: a fatal `unrecognized_name`, before anything is encrypted.
const UNRECOGNISED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Why a handshake has failed.
#[derive(Debug)]
pub enum Failure {
    /// The client has gone, or the socket failed.
    Io(io::Error),
    /// It took longer than it may.
    Timeout,
    /// There is no certificate for the name that was asked for, or none was asked for.
    UnknownName(Option<String>),
    /// What the client sent is not TLS, or not of a kind that both know; or its certificate is not accepted.
    Tls(Error),
}

impl Failure {
    /// All that [`Failure::reason`] says.
    pub const REASONS: [&str; 5] = ["closed", "timeout", "unknown_name", "client_certificate", "protocol"];

    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Failure::Io(_) => "closed",
            Failure::Timeout => "timeout",
            Failure::UnknownName(_) => "unknown_name",
            Failure::Tls(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => "client_certificate",
            Failure::Tls(_) => "protocol",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Io(e) => write!(f, "{e}"),
            Failure::Timeout => f.write_str("it took too long"),
            Failure::UnknownName(Some(name)) => write!(f, "no certificate for {name:?}"),
            Failure::UnknownName(None) => f.write_str("the client names no host"),
            Failure::Tls(e) => write!(f, "{e}"),
        }
    }
}

/// Makes a session of what a client sends.
///
/// # Errors
/// Why there is none; the client has been told, as far as it listens.
pub async fn accept(io: &mut TcpStream, server: &Arc<Server>) -> Result<ServerConnection, Failure> {
    match timeout(server.handshake_timeout(), begin(io, server)).await {
        Ok(done) => done,
        Err(_) => Err(Failure::Timeout),
    }
}

async fn begin(io: &mut TcpStream, server: &Arc<Server>) -> Result<ServerConnection, Failure> {
    let mut session = match server.certificates.refuses_unknown() {
        false => ServerConnection::new(server.config.clone()).map_err(Failure::Tls)?,
        true => known(io, server).await?,
    };
    while session.is_handshaking() {
        if session.wants_write() {
            flush(io, &mut session).await?;
        }
        if session.wants_read() && session.is_handshaking() {
            receive(io, &mut session).await?;
        }
    }
    // What is left to be sent are tickets: they leave with the first response, or as soon as nothing else is to be done.
    Ok(session)
}

/// Begins a session, if its client asks for a name that there is a certificate for.
async fn known(io: &mut TcpStream, server: &Arc<Server>) -> Result<ServerConnection, Failure> {
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        read(io, |socket| acceptor.read_tls(socket)).await?;
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((e, mut alert)) => {
                tell(io, |out| alert.write_all(out)).await;
                return Err(Failure::Tls(e));
            }
        }
    };
    let name = accepted.client_hello().server_name().map(str::to_owned);
    if !server.certificates.knows(name.as_deref()) {
        let _ = io.write_all(&UNRECOGNISED_NAME).await;
        return Err(Failure::UnknownName(name));
    }
    match accepted.into_connection(server.config.clone()) {
        Ok(session) => Ok(session),
        Err((e, mut alert)) => {
            tell(io, |out| alert.write_all(out)).await;
            Err(Failure::Tls(e))
        }
    }
}

/// Waits for something of the client's.
async fn read(io: &TcpStream, mut read: impl FnMut(&mut Socket<'_>) -> io::Result<usize>) -> Result<(), Failure> {
    loop {
        match read(&mut Socket(io)) {
            Ok(0) => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => io.readable().await.map_err(Failure::Io)?,
            Err(e) => return Err(Failure::Io(e)),
        }
    }
}

async fn receive(io: &mut TcpStream, session: &mut ServerConnection) -> Result<(), Failure> {
    read(io, |socket| session.read_tls(socket)).await?;
    if let Err(e) = session.process_new_packets() {
        // The alert.
        let _ = flush(io, session).await;
        return Err(Failure::Tls(e));
    }
    Ok(())
}

async fn flush(io: &mut TcpStream, session: &mut ServerConnection) -> Result<(), Failure> {
    while session.wants_write() {
        match session.write_tls(&mut Socket(io)) {
            Ok(0) => return Err(Failure::Io(io::ErrorKind::WriteZero.into())),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => io.writable().await.map_err(Failure::Io)?,
            Err(e) => return Err(Failure::Io(e)),
        }
    }
    Ok(())
}

async fn tell(io: &mut TcpStream, alert: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
    let mut bytes = Vec::new();
    if alert(&mut bytes).is_ok() {
        let _ = io.write_all(&bytes).await;
    }
}
