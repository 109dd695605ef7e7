//! Work in other threads and tasks of the runtime.

use tokio::task::{JoinHandle, spawn_blocking};

/// Waits for a task. Its panic goes on here.
pub async fn joined<T>(task: JoinHandle<T>) -> T {
    task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Does in a thread of its own what would keep the runtime's from everything else. When nobody waits for it any more it still
/// comes to its end.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(spawn_blocking(work)).await
}
