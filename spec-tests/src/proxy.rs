//! A proxy before an object store that does to requests what a test says: refuses, delays, cuts or loses them. Only std is
//! used, and one connection carries one request.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long either side may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It reaches the store, and its answer arrives.
    None,
    /// The store never hears of it; the answer has this status line and body.
    Refused(&'static str, &'static str),
    /// The same, with a body that the test makes.
    Answered(&'static str, String),
    /// The store does it, and no answer arrives: the connection breaks.
    Lost,
    /// The store never hears of it, and the connection stays silent so long.
    Silent(Duration),
    /// The answer's body breaks off after so many bytes.
    Cut(usize),
}

/// What is decided by: method, path and query, and the number of the request since the rule was set, from 0.
type Rule = dyn Fn(&str, &str, usize) -> Fault + Send + Sync;

struct Shared {
    store: SocketAddr,
    rule: Mutex<Arc<Rule>>,
    requests: AtomicUsize,
    faults: AtomicUsize,
}

/// The proxy. It serves until the process ends.
#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a proxy at {} before {}", self.address, self.shared.store)
    }
}

impl Proxy {
    /// A proxy before the store at `store` (`http://ADDRESS:PORT`) that does nothing to requests yet.
    ///
    /// # Panics
    /// When that is no address, or nothing can be listened on.
    #[must_use]
    pub fn before(store: &str) -> Self {
        let store = store.trim_start_matches("http://").parse().expect("the address of a store");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            store,
            rule: Mutex::new(Arc::new(|_, _, _| Fault::None)),
            requests: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = serving.clone();
                // What breaks on the way is what a proxy's clients have to live with.
                std::thread::spawn(move || shared.serve(client));
            }
        });
        Self { address, shared }
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this decides what happens to each request.
    pub fn set(&self, rule: impl Fn(&str, &str, usize) -> Fault + Send + Sync + 'static) {
        let mut current = self.shared.rule.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(rule);
        self.shared.requests.store(0, Ordering::SeqCst);
        self.shared.faults.store(0, Ordering::SeqCst);
    }

    /// From now on nothing happens to requests; how many something happened to.
    pub fn clear(&self) -> usize {
        let faults = self.shared.faults.load(Ordering::SeqCst);
        self.set(|_, _, _| Fault::None);
        faults
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        let (head, begun) = read_head(&mut client)?;
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fault = {
            let rule = self.rule.lock().unwrap_or_else(PoisonError::into_inner).clone();
            rule(method, path, self.requests.fetch_add(1, Ordering::SeqCst))
        };
        if fault != Fault::None {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0_usize);
        let rest = length.saturating_sub(begun.len()) as u64;
        let told = match &fault {
            Fault::Refused(status, body) => Some((*status, (*body).to_owned())),
            Fault::Answered(status, body) => Some((*status, body.clone())),
            _ => None,
        };
        if let Some((status, body)) = told {
            io::copy(&mut (&client).take(rest), &mut io::sink())?;
            let length = body.len();
            let body = if method == "HEAD" { "" } else { &body };
            write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
            return client.shutdown(Shutdown::Both);
        }
        if let Fault::Silent(pause) = fault {
            std::thread::sleep(pause);
            return Ok(());
        }
        let mut store = TcpStream::connect(self.store)?;
        store.set_read_timeout(Some(PATIENCE))?;
        store.set_write_timeout(Some(PATIENCE))?;
        // One request a connection, so that the end of an answer is the end of the connection.
        write!(store, "{}\r\nConnection: close\r\n\r\n", head.trim_end())?;
        store.write_all(&begun)?;
        io::copy(&mut (&client).take(rest), &mut store)?;
        let (answer, begun) = read_head(&mut store)?;
        match fault {
            Fault::Lost => {
                io::copy(&mut store, &mut io::sink())?;
            }
            Fault::Cut(bytes) => {
                client.write_all(answer.as_bytes())?;
                client.write_all(begun.get(..bytes).unwrap_or(&begun))?;
                let more = bytes.saturating_sub(begun.len()) as u64;
                io::copy(&mut (&store).take(more), &mut client)?;
            }
            _ => {
                client.write_all(answer.as_bytes())?;
                client.write_all(&begun)?;
                io::copy(&mut store, &mut client)?;
            }
        }
        client.shutdown(Shutdown::Both)
    }
}

/// A head up to its empty line, and what came after it.
fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value.trim()))
}
