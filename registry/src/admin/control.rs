//! How a command reaches the server that holds a folder: one order in, lines of progress and one answer out.
//!
//! ```text
//! > {"command":"undo","arguments":{"repo":"app","tag":"v1","to":null}}
//! < {"progress":"..."}                    none, or any number
//! < {"done":{...}}                        or
//! < {"failed":{"message":"...","mend":"user"}}
//! ```
//! Each message is one line of JSON. Whoever hangs up ends what was ordered: every operation can be broken off.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::storage::connect_control;

/// Most bytes of an order.
const ORDER_MAX_BYTES: u64 = 64 * 1024;
/// How long an order may take to come; it is one line that its sender has at hand.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of progress that wait for a slow reader; what comes beyond is left out.
const PROGRESS_WAITING: usize = 64;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The name of a [`Command`].
    pub command: String,
    /// What it takes.
    pub arguments: Value,
}

/// Whose it is to mend what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mend {
    /// Whoever gave the order.
    User,
    /// Ours, or the environment's.
    Environment,
}

/// An order that was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why not, and what to do.
    pub message: String,
    /// Whose it is to mend.
    pub mend: Mend,
}

impl Refusal {
    /// One that whoever gave the order can mend.
    pub fn user(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), mend: Mend::User }
    }

    /// One that is ours or the environment's.
    pub fn environment(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), mend: Mend::Environment }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Progress(String),
    Done(Value),
    Failed(Refusal),
}

/// Who hears how an order goes on.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(String) + Send + Sync>);

impl Progress {
    /// Each line goes to `hear`.
    pub fn to(hear: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Nobody.
    pub fn none() -> Self {
        Self::to(drop)
    }

    /// Says one line.
    pub fn say(&self, line: impl fmt::Display) {
        (self.0)(line.to_string());
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// Something that can be ordered.
#[async_trait]
pub trait Command: Send + Sync {
    /// By which name.
    fn name(&self) -> &'static str;

    /// Does it. May be dropped at any await.
    async fn run(&self, arguments: Value, progress: &Progress) -> Result<Value, Refusal>;
}

/// Everything that can be ordered, here or over a socket.
#[derive(Clone, Default)]
pub struct Commands(Vec<Arc<dyn Command>>);

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|command| command.name())).finish()
    }
}

impl Commands {
    /// These and one more.
    #[must_use]
    pub fn with(mut self, command: impl Command + 'static) -> Self {
        self.0.push(Arc::new(command));
        self
    }

    /// Does what is ordered.
    pub async fn run(&self, order: Order, progress: &Progress) -> Result<Value, Refusal> {
        match self.0.iter().find(|command| command.name() == order.command) {
            Some(command) => command.run(order.arguments, progress).await,
            None => {
                let known: Vec<_> = self.0.iter().map(|command| command.name()).collect();
                let known = known.join(", ");
                Err(Refusal::user(format!("there is no command `{}`: the running server knows {known}", order.command)))
            }
        }
    }

    /// Takes orders from a [`ControlSocket`]'s listener until `stop` comes.
    ///
    /// [`ControlSocket`]: crate::storage::ControlSocket
    pub async fn serve(
        self,
        listener: std::os::unix::net::UnixListener,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let listener = UnixListener::from_std(listener)?;
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let commands = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = commands.answer(stream).await {
                            tracing::warn!(error = %error, "an order over the control socket broke off");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the control socket does not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        let mut bounded = (&mut reader).take(ORDER_MAX_BYTES);
        let reading = bounded.read_line(&mut line);
        tokio::time::timeout(ORDER_TIMEOUT, reading).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let order: Order = match serde_json::from_str(&line) {
            Ok(order) => order,
            Err(error) => {
                let refusal = Refusal::user(format!("the order is not understood: {error}"));
                return writer.write_all(&encoded(&Line::Failed(refusal))).await;
            }
        };
        tracing::info!(command = order.command, arguments = %order.arguments, "an order over the control socket");
        let (sender, mut said) = mpsc::channel(PROGRESS_WAITING);
        let progress = Progress::to(move |line| drop(sender.try_send(line)));
        let mut working = pin!(self.run(order, &progress));
        // The other side sends nothing more; that it hangs up is seen by its end.
        let mut hung_up = pin!(async move { while reader.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {} });
        let result = loop {
            tokio::select! {
                result = &mut working => break result,
                Some(line) = said.recv() => writer.write_all(&encoded(&Line::Progress(line))).await?,
                () = &mut hung_up => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        };
        // Said before the end, and not sent yet: which of two that are ready is taken first is left to chance above.
        while let Ok(line) = said.try_recv() {
            writer.write_all(&encoded(&Line::Progress(line))).await?;
        }
        let last = result.map_or_else(Line::Failed, Line::Done);
        writer.write_all(&encoded(&last)).await
    }
}

fn encoded(line: &Line) -> Vec<u8> {
    // Text and values that came as JSON become JSON.
    let mut encoded = serde_json::to_vec(line).unwrap_or_default();
    encoded.push(b'\n');
    encoded
}

/// Has the server that holds the folder do something.
pub async fn call(folder: &Path, order: &Order, progress: &Progress) -> Result<Value, Refusal> {
    let unreachable = |error: io::Error| {
        Refusal::environment(format!(
            "the server that holds `{}` does not answer on its control socket: {error}",
            folder.display()
        ))
    };
    let stream = connect_control(folder).and_then(UnixStream::from_std).map_err(unreachable)?;
    let (reader, mut writer) = stream.into_split();
    let mut encoded = serde_json::to_vec(order).map_err(Refusal::environment)?;
    encoded.push(b'\n');
    writer.write_all(&encoded).await.map_err(unreachable)?;
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await.map_err(unreachable)? {
        match serde_json::from_str(&line) {
            Ok(Line::Progress(line)) => progress.say(line),
            Ok(Line::Done(value)) => return Ok(value),
            Ok(Line::Failed(refusal)) => return Err(refusal),
            Err(error) => return Err(Refusal::environment(format!("the server's answer is not understood: {error}"))),
        }
    }
    Err(Refusal::environment("the server ended before it had answered: see its log, and look before you repeat it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ControlSocket;
    use serde_json::json;

    struct Echo;

    #[async_trait]
    impl Command for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
        async fn run(&self, arguments: Value, progress: &Progress) -> Result<Value, Refusal> {
            progress.say("half");
            tokio::task::yield_now().await;
            match arguments.get("refuse") {
                Some(why) => Err(Refusal::user(why)),
                None => Ok(arguments),
            }
        }
    }

    /// Says when it is dropped.
    struct Endless(mpsc::UnboundedSender<()>);

    #[async_trait]
    impl Command for Endless {
        fn name(&self) -> &'static str {
            "endless"
        }
        async fn run(&self, _: Value, progress: &Progress) -> Result<Value, Refusal> {
            struct Ended(mpsc::UnboundedSender<()>);
            impl Drop for Ended {
                fn drop(&mut self) {
                    let _ = self.0.send(());
                }
            }
            let _ended = Ended(self.0.clone());
            progress.say("begun");
            std::future::pending().await
        }
    }

    fn order(command: &str, arguments: Value) -> Order {
        Order { command: command.into(), arguments }
    }

    #[tokio::test]
    async fn orders_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let mut socket = ControlSocket::make(folder.path()).unwrap();
        let (dropped, mut is_dropped) = mpsc::unbounded_channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let commands = Commands::default().with(Echo).with(Endless(dropped));
        let serving = tokio::spawn(commands.serve(socket.take().unwrap(), async { drop(stopped.await) }));

        let (heard, mut hearing) = mpsc::unbounded_channel();
        let progress = Progress::to(move |line| drop(heard.send(line)));
        let done = call(folder.path(), &order("echo", json!({"a": [1, "\n"]})), &progress).await;
        assert_eq!(done, Ok(json!({"a": [1, "\n"]})));
        assert_eq!(hearing.recv().await.as_deref(), Some("half"));
        let refused = call(folder.path(), &order("echo", json!({"refuse": 7})), &progress).await;
        assert_eq!(refused, Err(Refusal::user(7)));
        let unknown = call(folder.path(), &order("ecko", json!(null)), &progress).await.unwrap_err();
        assert_eq!(unknown.message, "there is no command `ecko`: the running server knows echo, endless");

        // Whoever hangs up ends what was ordered.
        let mut stream = UnixStream::from_std(connect_control(folder.path()).unwrap()).unwrap();
        stream.write_all(b"{\"command\":\"endless\",\"arguments\":{}}\n").await.unwrap();
        let mut begun = String::new();
        BufReader::new(&mut stream).read_line(&mut begun).await.unwrap();
        assert_eq!(begun, "{\"progress\":\"begun\"}\n");
        drop(stream);
        tokio::time::timeout(Duration::from_secs(10), is_dropped.recv()).await.unwrap().unwrap();

        let mut stream = UnixStream::from_std(connect_control(folder.path()).unwrap()).unwrap();
        stream.write_all(b"nonsense\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("the order is not understood") && answer.contains(r#""mend":"user""#), "{answer}");

        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        let gone = call(folder.path(), &order("echo", json!(null)), &progress).await.unwrap_err();
        assert!(gone.message.contains("does not answer on its control socket"), "{gone}");
    }
}
