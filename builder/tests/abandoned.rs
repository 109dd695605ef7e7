//! A process that ends while an export writes takes away what is not whole. Alone in its file: it is what a process does last.

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use fluyt::export::{ExportError, abandon, write_file};

#[test]
fn what_is_not_whole_goes_and_nothing_more_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    let names = || fs::read_dir(folder.path()).unwrap().count();
    write_file(&folder.path().join("whole"), |sink| sink.write_all(b"whole").map_err(ExportError::Write)).unwrap();
    let ((began, has_begun), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel());
    std::thread::scope(|scope| {
        let half = folder.path().join("half");
        let writing = scope.spawn(move || {
            write_file(&half, |sink| {
                sink.write_all(b"half").map_err(ExportError::Write)?;
                began.send(()).unwrap();
                may_go_on.recv().unwrap();
                Ok(())
            })
        });
        has_begun.recv().unwrap();
        assert_eq!(names(), 2);
        abandon(Duration::from_secs(20));
        assert_eq!(names(), 1);
        go_on.send(()).unwrap();
        assert!(writing.join().unwrap().is_err());
    });
    let error = write_file(&folder.path().join("late"), |_| Ok(())).unwrap_err();
    assert!(matches!(error, ExportError::Io { .. }), "{error}");
    assert_eq!((names(), fs::read(folder.path().join("whole")).unwrap()), (1, b"whole".to_vec()));
}
