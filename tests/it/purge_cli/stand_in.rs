//! An admin listener that says what it is told to, and a run of the command against it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::harness::within;

/// What becomes of a request.
#[derive(Clone)]
pub enum Reply {
    Say {
        status: u16,
        fields: &'static str,
        body: String,
        /// The connection is ended afterwards, without a word.
        end: bool,
    },
    /// The connection is ended instead.
    Nothing,
    /// An answer that is cut off.
    Cut,
    /// No answer, until the other side gives up.
    Silence,
}

/// The request that arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Of connections, from 0.
    pub connection: usize,
    pub start: String,
    pub fields: Vec<(String, String)>,
    /// Of the body, in bytes.
    pub length: usize,
    pub json: Value,
}

pub struct Admin {
    address: String,
    seen: Arc<Mutex<Vec<Asked>>>,
}

/// A purge that succeeds.
pub fn done(sequence: u64) -> Reply {
    (200, format!("{{\"at\":\"2026-11-21T15:00:00.123Z\",\"sequence\":{sequence}}}\n")).into()
}

impl<T: Into<String>> From<(u16, T)> for Reply {
    fn from((status, body): (u16, T)) -> Reply {
        Reply::Say { status, fields: "", body: body.into(), end: false }
    }
}

impl Reply {
    /// With header fields, each with its line end.
    pub fn with(mut self, more: &'static str) -> Reply {
        if let Reply::Say { fields, .. } = &mut self {
            *fields = more;
        }
        self
    }

    pub fn then_end(mut self) -> Reply {
        if let Reply::Say { end, .. } = &mut self {
            *end = true;
        }
        self
    }
}

impl Admin {
    /// Answers with one reply after the other; after the last, with status 599.
    pub fn tcp(replies: impl IntoIterator<Item = Reply>) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        Admin::start(address, replies, move || {
            let stream = listener.accept().ok()?.0;
            Some((stream.try_clone().ok()?, stream)).map(|(a, b): (TcpStream, TcpStream)| (boxed(a), Box::new(b) as _))
        })
    }

    pub fn unix(listener: UnixListener, replies: impl IntoIterator<Item = Reply>) -> Admin {
        Admin::start(String::new(), replies, move || {
            let stream = listener.accept().ok()?.0;
            Some((stream.try_clone().ok()?, stream))
                .map(|(a, b): (UnixStream, UnixStream)| (boxed(a), Box::new(b) as _))
        })
    }

    fn start(
        address: String,
        replies: impl IntoIterator<Item = Reply>,
        accept: impl Fn() -> Option<(Box<dyn BufRead>, Box<dyn Write>)> + Send + 'static,
    ) -> Admin {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut script = Script { replies: replies.into_iter().collect(), seen: Arc::clone(&seen), connection: 0 };
        // Ends with the test's process. Only one connection is open at a time.
        std::thread::spawn(move || {
            while let Some((mut reader, mut writer)) = accept() {
                while script.exchange(&mut reader, &mut writer).is_some() {}
                script.connection += 1;
            }
        });
        Admin { address, seen }
    }

    pub fn authority(&self) -> String {
        self.address.clone()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Asked> {
        self.seen.lock().expect("no panic").clone()
    }
}

fn boxed(stream: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::new(stream))
}

struct Script {
    replies: VecDeque<Reply>,
    seen: Arc<Mutex<Vec<Asked>>>,
    connection: usize,
}

impl Script {
    /// `None`: the connection has ended, or is to.
    fn exchange(&mut self, reader: &mut dyn BufRead, writer: &mut dyn Write) -> Option<()> {
        let asked = read(reader, self.connection)?;
        self.seen.lock().expect("no panic").push(asked);
        match self.replies.pop_front().unwrap_or_else(|| (599, "{}").into()) {
            Reply::Say { status, fields, body, end } => {
                let length = body.len();
                let text = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n{fields}\r\n{body}");
                writer.write_all(text.as_bytes()).ok()?;
                (!end).then_some(())
            }
            Reply::Nothing => None,
            Reply::Cut => {
                let _ = writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"sequence\":1");
                None
            }
            Reply::Silence => {
                let _ = reader.read(&mut [0]);
                None
            }
        }
    }
}

fn read(reader: &mut dyn BufRead, connection: usize) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        let read = reader.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    };
    let start = line()?;
    let mut fields = Vec::new();
    loop {
        match line()? {
            end if end.is_empty() => break,
            field => {
                let (name, value) = field.split_once(": ").expect("a field");
                fields.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
    }
    let length = fields.iter().find(|(name, _)| name == "content-length").expect("a length").1.parse().expect("one");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let json = serde_json::from_slice(&body).expect("JSON");
    Some(Asked { connection, start, fields, length, json })
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The strings of a list of selectors.
    pub fn list(&self, key: &str) -> Vec<&str> {
        self.json[key].as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }
}

/// A run of `foreland purge`.
pub struct Run {
    command: Command,
    input: Vec<u8>,
}

/// How it ended.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn new() -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foreland"));
        command.arg("purge").env_remove("FORELAND_ADMIN").env_remove("FORELAND_ADMIN_TOKEN");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Run { command, input: Vec::new() }
    }

    pub fn to(admin: &Admin) -> Run {
        Run::new().args(["--admin", &admin.url()])
    }

    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>) -> Run {
        self.command.args(args.into_iter().map(AsRef::as_ref));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Run {
        self.command.env(name, value);
        self
    }

    /// On standard input.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Run {
        self.input = input.into();
        self
    }

    pub fn out(mut self, out: impl Into<Stdio>) -> Run {
        self.command.stdout(out);
        self
    }

    pub fn err(mut self, err: impl Into<Stdio>) -> Run {
        self.command.stderr(err);
        self
    }

    pub async fn run(mut self) -> Said {
        let run = tokio::task::spawn_blocking(move || {
            let mut child = self.command.stdin(Stdio::piped()).spawn().expect("the binary starts");
            let mut stdin = child.stdin.take().expect("a pipe");
            // A command that fails early reads no further.
            std::thread::spawn(move || stdin.write_all(&self.input));
            drop(self.command);
            child.wait_with_output()
        });
        let output = within("the command's end", run).await.expect("a task").expect("an output");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}
