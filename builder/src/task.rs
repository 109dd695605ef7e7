//! Work in other threads and tasks of the runtime.

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

/// What a task gave. Its panic goes on here.
pub fn given<T>(ended: Result<T, JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Waits for a task.
pub async fn joined<T>(task: JoinHandle<T>) -> T {
    given(task.await)
}

/// Does in a thread of its own what would keep the runtime's from everything else. When nobody waits for it any more it still
/// comes to its end.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(spawn_blocking(work)).await
}
