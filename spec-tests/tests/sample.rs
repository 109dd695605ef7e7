//! Build contexts that the tests share.

use std::path::PathBuf;

use spec_tests::folder::TestDir;

/// A static busybox, which makes RUN and `docker run` possible without a base image.
pub(crate) fn busybox() -> PathBuf {
    PathBuf::from("/bin/busybox")
}

/// A tar with all that a file system can hold and a layer has to keep: owners, modes, links, long and odd names.
fn odd_root() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let long = format!("long/{}/{}", "n".repeat(120), "m".repeat(120));
    let files: [(&str, u32, u64, u64, &str); 7] = [
        ("etc/plain", 0o644, 0, 0, "plain\n"),
        ("etc/secret", 0o600, 1234, 5678, "secret\n"),
        ("bin/setuid", 0o4755, 0, 0, "#!/bin/busybox sh\n"),
        ("empty", 0o444, 0, 0, ""),
        ("na me/spa ce", 0o640, 7, 7, "space\n"),
        ("n\u{e4}me/\u{65e5}\u{672c}", 0o640, 2_000_000, 2_000_000, "unicode\n"),
        (&long, 0o644, 0, 0, "long\n"),
    ];
    let header = |kind, mode, uid, gid, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(size as u64);
        header.set_mtime(1_500_000_000);
        header
    };
    for (path, mode, uid, gid) in [("etc/", 0o755, 0, 0), ("tmp/", 0o1777, 0, 0), ("home/user/", 0o700, 1000, 1000)] {
        tar.append_data(&mut header(tar::EntryType::Directory, mode, uid, gid, 0), path, &b""[..]).unwrap();
    }
    for (path, mode, uid, gid, content) in files {
        let mut header = header(tar::EntryType::Regular, mode, uid, gid, content.len());
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let mut link = header(tar::EntryType::Symlink, 0o777, 1234, 0, 0);
    tar.append_link(&mut link, "etc/symlink", "../empty").unwrap();
    let mut link = header(tar::EntryType::Link, 0o600, 1234, 5678, 0);
    tar.append_link(&mut link, "etc/hard", "etc/secret").unwrap();
    tar.into_inner().unwrap()
}

/// A context whose image has every kind of file, and every setting that a container runs by.
pub(crate) fn odd_context() -> TestDir {
    let context = TestDir::new();
    context.write("root.tar", odd_root());
    std::fs::copy(busybox(), context.join("busybox")).unwrap();
    context.write("tree/a/one", "1\n");
    context.write("tree/b/two", "2\n");
    context.write(
        "Dockerfile",
        r#"FROM scratch
ADD root.tar /
COPY busybox /bin/busybox
COPY --chown=12:34 --chmod=0755 tree /srv/tree/
ENV PATH=/bin GREETING="hello you"
LABEL org.example.one="1" org.example.two="two words"
EXPOSE 8080 53/udp
VOLUME /data
WORKDIR /srv/work
STOPSIGNAL SIGINT
HEALTHCHECK --interval=30s --retries=2 CMD ["/bin/busybox", "true"]
USER 1234:5678
ENTRYPOINT ["/bin/busybox"]
CMD ["echo", "run"]
"#,
    );
    context
}

/// A context with busybox as the shell, for RUN: what follows the usual first lines of its Dockerfile is `rest`.
pub(crate) fn shell_context(rest: &str) -> TestDir {
    let context = TestDir::new();
    std::fs::copy(busybox(), context.join("busybox")).unwrap();
    context.write(
        "Dockerfile",
        format!("FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV PATH=/bin\n{rest}"),
    );
    context
}
