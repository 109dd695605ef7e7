//! The places with credentials, searched in order.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::file::CredentialFile;
use super::program::{Program, file_name};
use super::{Credential, CredentialError};
use crate::environment::Environment;
use crate::reference::normal_host;

/// The variable whose text is searched first, as Docker does.
const VARIABLE: &str = "DOCKER_AUTH_CONFIG";
/// Largest credentials file that is read, in bytes; a real one has a few hundred.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The credentials files of a user, and the helpers they name. All its functions read files and run programs: they block.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// In the order of searching; the first is where credentials are stored.
    files: Vec<PathBuf>,
    /// A file that the user named must be there.
    named: bool,
    /// Read before them, and never written.
    variable: Option<Secret>,
    search_path: Option<OsString>,
}

/// A text that `Debug` leaves out.
#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(set)")
    }
}

/// Credentials and where they were found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The credentials.
    pub credential: Credential,
    /// The file or helper, in words.
    pub origin: String,
}

/// The outcome of a search.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// What was found, if anything.
    pub found: Option<Found>,
    /// What went wrong on the way: files that cannot be read, helpers that fail.
    pub notes: Vec<String>,
}

/// Where credentials were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Readable by whoever reads the file.
    File(PathBuf),
    /// In the keeping of that helper program.
    Helper(String),
}

/// From where credentials were removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// The files that had an entry.
    pub files: Vec<PathBuf>,
    /// The helper programs that had one.
    pub helpers: Vec<String>,
}

impl Keyring {
    /// The places that `authfile` and the environment name.
    #[must_use]
    pub fn new(authfile: Option<&Path>, environment: &Environment) -> Self {
        let search_path = environment.path.clone();
        let variable = environment.docker_auth_config.clone().filter(|_| authfile.is_none()).map(Secret);
        if let Some(file) = authfile.or(environment.registry_auth_file.as_deref()) {
            return Self { files: vec![file.to_owned()], named: true, variable, search_path };
        }
        let home = environment.home.as_deref();
        let docker = environment.docker_config.clone().or_else(|| Some(home?.join(".docker")));
        let user = environment.xdg_config_home.clone().or_else(|| Some(home?.join(".config")));
        let files = [
            docker.map(|folder| folder.join("config.json")),
            environment.runtime_folder.as_ref().map(|folder| folder.join("auth.json")),
            user.map(|folder| folder.join("containers").join("auth.json")),
        ];
        Self { files: files.into_iter().flatten().collect(), named: false, variable, search_path }
    }

    /// Whether the variable [`Self::find`] looks at first has an entry for a registry: it goes before what is stored, and
    /// nobody but who set it takes it away.
    #[must_use]
    pub fn variable_has(&self, host: &str) -> bool {
        let file = self.variable.as_ref().and_then(|Secret(text)| CredentialFile::parse(text).ok());
        file.is_some_and(|file| matches!(file.entry(normal_host(host), ""), Some(Ok(_))))
    }

    /// The credentials for a repository of a registry.
    #[must_use]
    pub fn find(&self, host: &str, repository: &str) -> Lookup {
        let host = normal_host(host);
        let mut lookup = Lookup::default();
        if let Some(Secret(text)) = &self.variable {
            let entry = CredentialFile::parse(text).map(|file| file.entry(host, repository).transpose());
            match entry.and_then(|entry| entry) {
                Ok(Some(credential)) => {
                    lookup.found = Some(Found { credential, origin: format!("the variable {VARIABLE}") });
                    return lookup;
                }
                Ok(None) => {}
                Err(problem) => lookup.notes.push(format!("the variable {VARIABLE} cannot be used: {problem}")),
            }
        }
        for path in &self.files {
            let file = match read(path) {
                Ok(Some(file)) => file,
                Ok(None) => {
                    if self.named {
                        lookup.notes.push(format!("the credentials file {} does not exist", path.display()));
                    }
                    continue;
                }
                Err(error) => {
                    lookup.notes.push(error.to_string());
                    continue;
                }
            };
            if let Some(name) = file.helper(host, repository) {
                match Program::find(&name, self.search_path.as_deref()).and_then(|helper| helper.get(host)) {
                    Ok(Some(credential)) => {
                        lookup.found = Some(Found {
                            credential,
                            origin: format!("`{}` named in {}", file_name(&name), path.display()),
                        });
                        return lookup;
                    }
                    Ok(None) => {}
                    Err(problem) => lookup.notes.push(helper_error(&name, path, problem).to_string()),
                }
            }
            match file.entry(host, repository) {
                Some(Ok(credential)) => {
                    lookup.found = Some(Found { credential, origin: path.display().to_string() });
                    return lookup;
                }
                Some(Err(problem)) => {
                    lookup.notes.push(CredentialError::Format { path: path.clone(), problem }.to_string())
                }
                None => {}
            }
        }
        lookup
    }

    /// Stores user name and password for a registry: through the helper that the first file names, or in that file,
    /// which then has mode 0600.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, or the helper fails. The file is then as it was.
    pub fn store(&self, host: &str, credential: &Credential) -> Result<Stored, CredentialError> {
        let Credential::Password { username, password } = credential else { return Err(CredentialError::NotStorable) };
        let host = normal_host(host);
        let path = self.files.first().ok_or(CredentialError::NoPlace)?;
        let mut file = match read(path)? {
            Some(file) => file,
            None => {
                CredentialFile::parse("").map_err(|problem| CredentialError::Format { path: path.clone(), problem })?
            }
        };
        if let Some(name) = file.helper(host, "") {
            Program::find(&name, self.search_path.as_deref())
                .and_then(|helper| helper.store(host, username, password))
                .map_err(|problem| helper_error(&name, path, problem))?;
            return Ok(Stored::Helper(file_name(&name)));
        }
        file.set(host, username, password)
            .map_err(|problem| CredentialError::Format { path: path.clone(), problem })?;
        write(path, &file.text())?;
        Ok(Stored::File(path.clone()))
    }

    /// Removes what is stored for a registry, in whichever of the files and helpers [`Self::find`] would find it. What the
    /// variable has stays ([`Self::variable_has`]).
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or a helper fails.
    pub fn erase(&self, host: &str) -> Result<Erased, CredentialError> {
        let host = normal_host(host);
        let mut erased = Erased::default();
        for path in &self.files {
            let Some(mut file) = read(path)? else { continue };
            if let Some(name) = file.helper(host, "") {
                let had_one = Program::find(&name, self.search_path.as_deref())
                    .and_then(|helper| helper.erase(host))
                    .map_err(|problem| helper_error(&name, path, problem))?;
                if had_one {
                    erased.helpers.push(file_name(&name));
                }
            }
            if file.remove(host).map_err(|problem| CredentialError::Format { path: path.clone(), problem })? {
                write(path, &file.text())?;
                erased.files.push(path.clone());
            }
        }
        Ok(erased)
    }
}

fn helper_error(name: &str, path: &Path, problem: String) -> CredentialError {
    CredentialError::Helper { program: file_name(name), path: path.to_owned(), problem }
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CredentialError {
    move |source| CredentialError::File { doing, path: path.to_owned(), source }
}

/// `None` when there is no such file.
fn read(path: &Path) -> Result<Option<CredentialFile>, CredentialError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(file_error("read", path)(error)),
    };
    let format = |problem: String| CredentialError::Format { path: path.to_owned(), problem };
    if !metadata.is_file() {
        return Err(format("it is not a regular file".to_owned()));
    }
    if metadata.len() > FILE_MAX_BYTES {
        return Err(format(format!("it has more than {FILE_MAX_BYTES} bytes")));
    }
    let text = fs::read_to_string(path).map_err(file_error("read", path))?;
    CredentialFile::parse(&text).map(Some).map_err(format)
}

/// Replaces the file at once: a reader sees the old or the new one, and only its owner may read it.
fn write(path: &Path, text: &str) -> Result<(), CredentialError> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    // Through a link, so that a file kept elsewhere stays there.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(file_error("create the folder of", path))?;
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let temporary = folder.join(name);
    let outcome = (|| {
        // A leftover of a process that had the same number.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &target)
    })();
    outcome.map_err(|error| {
        // The error above is the one to tell.
        let _ = fs::remove_file(&temporary);
        file_error("write", path)(error)
    })
}
