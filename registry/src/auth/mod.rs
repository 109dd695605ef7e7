//! Who may do what. Every operation of the service takes a proof, and only this room can make one, so no handler reaches
//! the store without having asked here.

mod htpasswd;
mod passwords;
mod token;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

pub use htpasswd::{HtpasswdError, Users};
pub use passwords::Passwords;

use crate::spec::RepoName;
use token::Claim;

/// Leave to read from one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayPull(RepoName);

/// Leave to write to one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayPush(RepoName, Option<String>);

/// Leave to delete from one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayDelete(RepoName, Option<String>);

/// Leave to see the names of repositories, of those that [`MayList::shows`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayList(());

macro_rules! of_one_repository {
    ($($proof:ty),*) => {$(
        impl $proof {
            /// The repository that it is for.
            pub fn repo(&self) -> &RepoName { &self.0 }
        }
    )*};
}
of_one_repository!(MayPull, MayPush, MayDelete);

macro_rules! by_somebody {
    ($($proof:ty),*) => {$(
        impl $proof {
            /// Who has it, for histories and logs; `None`: nobody knows.
            pub fn by(&self) -> Option<&str> { self.1.as_deref() }
        }
    )*};
}
by_somebody!(MayPush, MayDelete);

impl MayList {
    /// Whether whoever asked may know of this repository.
    pub fn shows(&self, _repo: &RepoName) -> bool {
        true
    }
}

/// What a client shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// What proves who it is.
    pub proof: Proof,
    /// Where it comes from, where that is known: guessing is limited by it.
    pub from: Option<IpAddr>,
}

/// What proves who somebody is.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// A name and what only its owner knows.
    Password {
        /// The user's name.
        user: String,
        /// The user's password.
        password: String,
    },
    /// A token that [`Authorizer::issue`] made.
    Token(String),
    /// Something that is neither: it proves nothing.
    Unreadable,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords and tokens stay out of every log.
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Token(_) => "Token",
            Self::Unreadable => "Unreadable",
        })
    }
}

/// Who asks: made by [`Authorizer::identify`], or, for the commands, by [`Caller::operator`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Identity);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// Showed nothing.
    Anonymous,
    /// Showed a token that was given to somebody who showed nothing.
    AnonymousToken,
    User(String),
    Operator,
}

impl Caller {
    /// Whoever runs a command on the machine of the registry. May do everything.
    pub fn operator() -> Self {
        Self(Identity::Operator)
    }

    /// Somebody who showed nothing.
    pub fn anonymous() -> Self {
        Self(Identity::Anonymous)
    }

    /// The name to put down in logs and histories; `None`: nobody knows.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Identity::Anonymous | Identity::AnonymousToken => None,
            Identity::User(name) => Some(name),
            Identity::Operator => Some("operator"),
        }
    }
}

/// Why nobody was identified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A name or a password that is not one of ours.
    #[error("the user or the password is wrong: log in again")]
    Wrong,
    /// Nothing was shown where something has to be.
    #[error("a login is needed")]
    Missing,
    /// A token that is not ours, is too old, or whose user is gone or has a new password.
    #[error("the token is not valid or not any more: ask for a new one")]
    TokenInvalid,
    /// Too many wrong passwords.
    #[error("too many wrong passwords: try again later")]
    TooMany {
        /// When it makes sense to try again.
        retry_after_seconds: u64,
    },
    /// More logins at once than can be checked.
    #[error("too many logins are being checked: try again")]
    Busy,
}

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action} is not allowed{}{}", repo.as_ref().map(|repo| format!(" in repository {repo}")).unwrap_or_default(), if *.login_helps { " without a login" } else { "" })]
pub struct Denied {
    /// pull, push, delete, or list.
    pub action: &'static str,
    /// Where.
    pub repo: Option<RepoName>,
    /// Whether it was refused because nobody is logged in.
    pub login_helps: bool,
}

/// How a client is to say who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Name and password in each request.
    Basic,
    /// With a token, which it gets for name and password, or for nothing.
    Bearer,
}

/// A token that says who its holder is.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// To be sent as it is.
    pub text: String,
    /// How long it is good for.
    pub expires_in_seconds: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_in_seconds", &self.expires_in_seconds).finish_non_exhaustive()
    }
}

/// The users of a password file.
#[derive(Debug)]
pub struct Accounts {
    /// Who they are.
    pub passwords: Passwords,
    /// Whether everybody may pull.
    pub anonymous_pull: bool,
    /// Seals tokens; every replica has the same.
    pub token_keys: TokenKeys,
}

/// What tokens are sealed with: the first seals, any opens.
pub struct TokenKeys(RwLock<Arc<[Vec<u8>]>>);

impl TokenKeys {
    /// These.
    pub fn new(keys: Arc<[Vec<u8>]>) -> Self {
        Self(RwLock::new(keys))
    }

    /// These instead.
    pub fn replace(&self, keys: Arc<[Vec<u8>]>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn get(&self) -> Arc<[Vec<u8>]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeys")
    }
}

/// Decides. Users of a password file may do everything; everybody else nothing, or pull.
#[derive(Clone, Debug)]
pub enum Authorizer {
    /// Whoever reaches the port may do everything.
    Everyone,
    /// Only users, except that everybody may pull where that is on.
    Accounts(Arc<Accounts>),
}

impl Authorizer {
    /// Who is it? Asked once for each request, before any proof.
    pub async fn identify(&self, given: Option<Credentials>) -> Result<Caller, AuthError> {
        // Where nobody is known, what is shown says nothing.
        let (Self::Accounts(accounts), Some(given)) = (self, given) else { return Ok(Caller::anonymous()) };
        match given.proof {
            Proof::Password { user, password } => {
                accounts.passwords.check(&user, &password, given.from).await?;
                Ok(Caller(Identity::User(user)))
            }
            Proof::Token(token) => accounts.open(&token, now()).map(Caller).ok_or(AuthError::TokenInvalid),
            Proof::Unreadable => Err(AuthError::Wrong),
        }
    }

    /// Opens tokens by these keys from now on, and seals them by the first.
    pub fn seal_by(&self, keys: Arc<[Vec<u8>]>) {
        if let Self::Accounts(accounts) = self {
            accounts.token_keys.replace(keys);
        }
    }

    /// How a client is to say who it is; `None` where nobody asks.
    pub fn scheme(&self) -> Option<Scheme> {
        match self {
            Self::Everyone => None,
            // With `Basic`, docker would not even try to pull without credentials.
            Self::Accounts(accounts) if accounts.anonymous_pull => Some(Scheme::Bearer),
            Self::Accounts(_) => Some(Scheme::Basic),
        }
    }

    /// A token for the caller; `None` where there are none to be had.
    pub fn issue(&self, caller: &Caller) -> Option<Token> {
        let Self::Accounts(accounts) = self else { return None };
        accounts.issue(caller, now())
    }

    /// May the caller use the registry at all? This is what a login asks.
    pub fn enter(&self, caller: &Caller) -> Result<(), Denied> {
        match (self, &caller.0) {
            // Refused even where everybody may pull: a client that is not asked to log in here never does.
            (Self::Accounts(_), Identity::Anonymous) => Err(Denied { action: "entry", repo: None, login_helps: true }),
            (Self::Accounts(_) | Self::Everyone, _) => Ok(()),
        }
    }

    /// May the caller read from `repo`?
    pub fn pull(&self, caller: &Caller, repo: &RepoName) -> Result<MayPull, Denied> {
        match self {
            Self::Accounts(accounts) if accounts.anonymous_pull => Ok(MayPull(repo.clone())),
            _ => self.known(caller, "pull", Some(repo)).map(|()| MayPull(repo.clone())),
        }
    }

    /// May the caller write to `repo`?
    pub fn push(&self, caller: &Caller, repo: &RepoName) -> Result<MayPush, Denied> {
        self.known(caller, "push", Some(repo)).map(|()| MayPush(repo.clone(), caller.name().map(str::to_owned)))
    }

    /// May the caller delete from `repo`?
    pub fn delete(&self, caller: &Caller, repo: &RepoName) -> Result<MayDelete, Denied> {
        self.known(caller, "delete", Some(repo)).map(|()| MayDelete(repo.clone(), caller.name().map(str::to_owned)))
    }

    /// May the caller see names of repositories?
    pub fn list(&self, caller: &Caller) -> Result<MayList, Denied> {
        self.known(caller, "listing repositories", None).map(|()| MayList(()))
    }

    /// May the caller see how the registry does?
    pub fn watch(&self, caller: &Caller) -> Result<(), Denied> {
        self.known(caller, "reading metrics", None)
    }

    fn known(&self, caller: &Caller, action: &'static str, repo: Option<&RepoName>) -> Result<(), Denied> {
        match (self, &caller.0) {
            (Self::Everyone, _) | (Self::Accounts(_), Identity::User(_) | Identity::Operator) => Ok(()),
            (Self::Accounts(_), Identity::Anonymous | Identity::AnonymousToken) => {
                Err(Denied { action, repo: repo.cloned(), login_helps: true })
            }
        }
    }
}

impl Accounts {
    fn version(&self, user: Option<&str>) -> Option<Vec<u8>> {
        match user {
            Some(user) => self.passwords.version(user),
            None => self.anonymous_pull.then(Vec::new),
        }
    }

    fn issue(&self, caller: &Caller, now: u64) -> Option<Token> {
        let user = match &caller.0 {
            Identity::User(user) => Some(user.clone()),
            Identity::Anonymous | Identity::AnonymousToken => None,
            Identity::Operator => return None,
        };
        let version = self.version(user.as_deref())?;
        let claim = Claim { user, expires: now.saturating_add(token::LIFETIME_SECONDS) };
        let text = token::seal(&claim, self.token_keys.get().first()?, &version);
        Some(Token { text, expires_in_seconds: token::LIFETIME_SECONDS })
    }

    fn open(&self, token: &str, now: u64) -> Option<Identity> {
        let opened = |key: &Vec<u8>| token::open(token, key, |user| self.version(user));
        let claim = self.token_keys.get().iter().find_map(opened)?;
        if claim.expires <= now {
            return None;
        }
        Some(claim.user.map_or(Identity::AnonymousToken, Identity::User))
    }
}

/// Seconds since 1970, by the wall clock: tokens are read by other replicas too.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(anonymous_pull: bool) -> Arc<Accounts> {
        let users = Users::parse(&format!("ann:{}", bcrypt::hash("a", 4).unwrap())).unwrap();
        let passwords = Passwords::new(users, [7; 32], 1);
        let token_keys = TokenKeys::new([b"new".into(), b"old".into()].into());
        Arc::new(Accounts { passwords, anonymous_pull, token_keys })
    }

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        let proof = Proof::Password { user: user.into(), password: password.into() };
        Some(Credentials { proof, from: None })
    }

    fn bearer(token: &str) -> Option<Credentials> {
        Some(Credentials { proof: Proof::Token(token.into()), from: None })
    }

    /// Which of enter, pull, push, delete, list and watch are allowed, by their first letters.
    fn allowed(authorizer: &Authorizer, caller: &Caller) -> String {
        let repo = "r".parse().unwrap();
        [
            (authorizer.enter(caller).is_ok(), 'e'),
            (authorizer.pull(caller, &repo).is_ok(), 'p'),
            (authorizer.push(caller, &repo).is_ok(), 'P'),
            (authorizer.delete(caller, &repo).is_ok(), 'd'),
            (authorizer.list(caller).is_ok(), 'l'),
            (authorizer.watch(caller).is_ok(), 'w'),
        ]
        .iter()
        .filter_map(|(allowed, letter)| allowed.then_some(*letter))
        .collect()
    }

    #[tokio::test]
    async fn who_may_do_what() {
        let everyone = Authorizer::Everyone;
        let anybody = everyone.identify(basic("x", "y")).await.unwrap();
        assert_eq!(allowed(&everyone, &anybody), "epPdlw");
        assert_eq!((everyone.scheme(), everyone.issue(&anybody)), (None, None));

        for (anonymous_pull, anonymous, scheme) in [(false, "", Scheme::Basic), (true, "p", Scheme::Bearer)] {
            let authorizer = Authorizer::Accounts(accounts(anonymous_pull));
            let ann = authorizer.identify(basic("ann", "a")).await.unwrap();
            assert_eq!((allowed(&authorizer, &ann).as_str(), ann.name()), ("epPdlw", Some("ann")));
            assert_eq!(allowed(&authorizer, &Caller::operator()), "epPdlw");
            let anybody = authorizer.identify(None).await.unwrap();
            assert_eq!(allowed(&authorizer, &anybody), anonymous);
            assert_eq!(authorizer.scheme(), Some(scheme));
            assert_eq!(authorizer.identify(basic("ann", "b")).await, Err(AuthError::Wrong));
            let unreadable = Credentials { proof: Proof::Unreadable, from: None };
            assert_eq!(authorizer.identify(Some(unreadable)).await, Err(AuthError::Wrong));
        }
    }

    #[tokio::test]
    async fn a_token_is_as_good_as_who_got_it() {
        let accounts = accounts(true);
        let authorizer = Authorizer::Accounts(accounts.clone());
        let ann = authorizer.identify(basic("ann", "a")).await.unwrap();
        let token = authorizer.issue(&ann).unwrap().text;
        assert_eq!(authorizer.identify(bearer(&token)).await, Ok(ann.clone()));
        let anonymous = authorizer.issue(&Caller::anonymous()).unwrap().text;
        let anybody = authorizer.identify(bearer(&anonymous)).await.unwrap();
        assert_eq!(allowed(&authorizer, &anybody), "ep");
        assert_eq!(authorizer.identify(bearer("x.y")).await, Err(AuthError::TokenInvalid));

        let old = accounts.issue(&ann, 1000).unwrap();
        assert!(accounts.open(&old.text, 1000 + old.expires_in_seconds - 1).is_some());
        assert!(accounts.open(&old.text, 1000 + old.expires_in_seconds).is_none());

        accounts.passwords.replace(Users::default());
        assert_eq!(authorizer.identify(bearer(&token)).await, Err(AuthError::TokenInvalid));
        assert_eq!(authorizer.issue(&ann), None);
    }

    #[test]
    fn secrets_stay_out_of_what_is_shown() {
        let shown = format!("{:?} {:?} {:?}", basic("ann", "secret"), bearer("secret"), accounts(true));
        assert!(!shown.contains("secret") && !shown.contains("$2"), "{shown}");
        let users = Users::parse(&format!("ann:{}", bcrypt::hash("a", 4).unwrap())).unwrap();
        assert_eq!(format!("{users:?}"), "Users(1)");
    }
}
