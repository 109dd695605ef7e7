//! Users and groups by name, as an image's own `/etc/passwd` and `/etc/group` have them. Pure.

/// Largest id of a user or group that runtimes of containers take.
const ID_MAX: u32 = i32::MAX as u32;

/// What a root file system says about its users.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Text of `/etc/passwd`.
    pub passwd: Option<String>,
    /// Text of `/etc/group`.
    pub group: Option<String>,
}

/// Who a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// All its groups, `gid` among them.
    pub groups: Vec<u32>,
    /// The user's home folder, `/` where the user is unknown.
    pub home: String,
}

/// A user or group that cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// No such user.
    #[error("the image has no user `{name}`: {}", missing(.file_is_there, "/etc/passwd"))]
    NoUser {
        /// The name.
        name: String,
        /// Whether `/etc/passwd` is there at all.
        file_is_there: bool,
    },
    /// No such group.
    #[error("the image has no group `{name}`: {}", missing(.file_is_there, "/etc/group"))]
    NoGroup {
        /// The name.
        name: String,
        /// Whether `/etc/group` is there at all.
        file_is_there: bool,
    },
    /// A number that is no id.
    #[error("`{text}`: the ids of users and groups are 0 to {ID_MAX}")]
    OutOfRange {
        /// The text.
        text: String,
    },
}

fn missing(file_is_there: &bool, file: &str) -> String {
    match file_is_there {
        true => format!("it is not in its {file}"),
        false => format!("it has no {file}; use a number"),
    }
}

/// The number that a text is; one that is too large is taken for a name.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number <= ID_MAX)
}

impl Accounts {
    /// Lines of a colon-separated file with at least `least` fields.
    fn rows(text: Option<&str>, least: usize) -> impl Iterator<Item = Vec<&str>> {
        text.unwrap_or_default()
            .lines()
            .map(|line| line.trim().split(':').collect::<Vec<_>>())
            .filter(move |fields| fields.len() >= least)
    }

    fn users(&self) -> impl Iterator<Item = Vec<&str>> {
        Self::rows(self.passwd.as_deref(), 4)
    }

    fn groups(&self) -> impl Iterator<Item = Vec<&str>> {
        Self::rows(self.group.as_deref(), 3)
    }

    fn group(&self, text: &str) -> Result<u32, OwnerError> {
        if let Some(number) = id(text) {
            return Ok(number);
        }
        self.groups()
            .find(|fields| fields[0] == text)
            .and_then(|fields| fields[2].parse().ok())
            .ok_or_else(|| OwnerError::NoGroup { name: text.to_owned(), file_is_there: self.group.is_some() })
    }

    /// `--chown`, and what of it the image does not know: the reference builder takes an unknown user for root, and an
    /// unknown or empty group for none, so a build must not fail of them.
    ///
    /// A number alone is user and group; a name alone takes the user's own group.
    #[must_use]
    pub fn owner(&self, text: &str) -> ((u32, u32), Vec<OwnerError>) {
        let mut unknown = Vec::new();
        let (user, group) = text.split_once(':').map_or((text, ""), |(user, group)| (user, group));
        let own = match id(user) {
            _ if user.is_empty() => (0, 0),
            // A name that looks like a number is a number, as everywhere in containers.
            Some(number) => (number, number),
            None => {
                let row = self.users().find(|fields| fields[0] == user);
                let found = row.and_then(|fields| Some((fields[2].parse().ok()?, fields[3].parse().ok()?)));
                let file_is_there = self.passwd.is_some();
                match found {
                    Some(found) => found,
                    None => {
                        unknown.push(OwnerError::NoUser { name: user.to_owned(), file_is_there });
                        (0, 0)
                    }
                }
            }
        };
        let gid = match self.group(group) {
            _ if group.is_empty() => own.1,
            Ok(gid) => gid,
            Err(error) => {
                unknown.push(error);
                own.1
            }
        };
        ((own.0, gid), unknown)
    }

    /// `USER`: no user is root. `user` alone also gets the groups that name it as a member; `user:group` does not. The
    /// group itself is always one of them, as the runtimes of containers have it.
    ///
    /// # Errors
    /// When a name is unknown, or a number is no id.
    pub fn identity(&self, text: &str) -> Result<Identity, OwnerError> {
        let mut parts = text.split(':');
        let (user, group) = (parts.next().unwrap_or_default(), parts.next().filter(|group| !group.is_empty()));
        let user = if user.is_empty() { "0" } else { user };
        for part in [Some(user), group].into_iter().flatten() {
            if part.parse::<i64>().is_ok_and(|number| !(0..=i64::from(ID_MAX)).contains(&number)) {
                return Err(OwnerError::OutOfRange { text: text.to_owned() });
            }
        }
        let number = user.parse::<u32>().ok();
        let row = self.users().find(|fields| match number {
            Some(number) => fields[2].parse() == Ok(number),
            None => fields[0] == user,
        });
        let (uid, own_group, name) = match (number, &row) {
            (_, Some(fields)) => {
                let unknown = || OwnerError::NoUser { name: user.to_owned(), file_is_there: true };
                let uid = fields[2].parse().map_err(|_| unknown())?;
                (uid, fields[3].parse().unwrap_or(0), Some(fields[0]))
            }
            // A number that no line has: group 0, as the reference runs it.
            (Some(number), None) => (number, 0, None),
            (None, None) => {
                return Err(OwnerError::NoUser { name: user.to_owned(), file_is_there: self.passwd.is_some() });
            }
        };
        let home = self.home(uid);
        if let Some(group) = group {
            let gid = self.group(group)?;
            return Ok(Identity { uid, gid, groups: vec![gid], home });
        }
        let mut groups: Vec<u32> = self
            .groups()
            .filter(|fields| {
                let members = fields.get(3).copied().unwrap_or_default();
                name.is_some_and(|name| members.split(',').any(|member| member == name))
            })
            .filter_map(|fields| fields[2].parse().ok())
            .chain([own_group])
            .collect();
        groups.sort_unstable();
        groups.dedup();
        Ok(Identity { uid, gid: own_group, groups, home })
    }

    /// The home folder: that of the first user of this number, whatever name was asked for, and as it stands there.
    fn home(&self, uid: u32) -> String {
        let row = self.users().find(|fields| fields[2].parse() == Ok(uid));
        row.map_or("/", |fields| fields.get(5).copied().unwrap_or_default()).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: Some("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nodd\n".to_owned()),
            group: Some("root:x:0:\napp:x:1001:\nstaff:x:50:app,other\nvideo:x:44:app\n".to_owned()),
        }
    }

    #[test]
    fn owners_by_name_and_number() {
        let accounts = accounts();
        let no_user = |name: &str| format!("the image has no user `{name}`: it is not in its /etc/passwd");
        let no_group = |name: &str| format!("the image has no group `{name}`: it is not in its /etc/group");
        for (text, expected, unknown) in [
            ("0", (0, 0), None),
            ("7", (7, 7), None),
            ("7:8", (7, 8), None),
            ("app", (1000, 1001), None),
            ("app:staff", (1000, 50), None),
            ("app:9", (1000, 9), None),
            ("7:staff", (7, 50), None),
            ("2147483647", (2_147_483_647, 2_147_483_647), None),
            ("2147483648", (0, 0), Some(no_user("2147483648"))),
            (":staff", (0, 50), None),
            ("app:", (1000, 1001), None),
            ("nobody", (0, 0), Some(no_user("nobody"))),
            ("nobody:staff", (0, 50), Some(no_user("nobody"))),
            ("app:wheel", (1000, 1001), Some(no_group("wheel"))),
            ("1:2:3", (1, 1), Some(no_group("2:3"))),
        ] {
            let (owner, found) = accounts.owner(text);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!((owner, found), (expected, unknown.into_iter().collect()), "{text}");
        }
        let (owner, unknown) = Accounts::default().owner("app:5");
        assert_eq!(owner, (0, 5));
        assert_eq!(unknown[0].to_string(), "the image has no user `app`: it has no /etc/passwd; use a number");
        assert_eq!(Accounts::default().owner("7:8"), ((7, 8), Vec::new()));
    }

    fn app_again(accounts: &Accounts) -> Identity {
        accounts.identity("app").unwrap()
    }

    #[test]
    fn a_home_is_that_of_the_first_user_of_the_number() {
        let passwd = "a:x:5:5::/a:\nb:x:5:6::/b:\nempty:x:7:7:::\nshort:x:8:8\n";
        let accounts = Accounts { passwd: Some(passwd.to_owned()), group: None };
        for (user, home) in [("a", "/a"), ("b", "/a"), ("5", "/a"), ("empty", ""), ("short", ""), ("9", "/")] {
            assert_eq!(accounts.identity(user).unwrap().home, home, "{user}");
        }
    }

    #[test]
    fn identities_carry_further_groups_only_without_a_group() {
        let accounts = accounts();
        let app = accounts.identity("app").unwrap();
        assert_eq!((app.uid, app.gid, app.groups, app.home.as_str()), (1000, 1001, vec![44, 50, 1001], "/home/app"));
        let by_number = accounts.identity("1000").unwrap();
        assert_eq!((by_number.uid, by_number.gid, by_number.groups), (1000, 1001, vec![44, 50, 1001]));
        assert_eq!(accounts.identity("app:").unwrap(), app_again(&accounts));
        assert_eq!(accounts.identity("app:staff").unwrap().groups, [50]);
        let root = accounts.identity(":staff").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 50, "/root"));
        let unknown = accounts.identity("4242").unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.home.as_str()), (4242, 0, "/"));
        assert_eq!(accounts.identity("").unwrap().home, "/root");
        assert_eq!(accounts.identity("2147483647").unwrap().uid, 2_147_483_647);
        for text in ["2147483648", "-1", "4294967296", "app:2147483648"] {
            assert!(matches!(accounts.identity(text), Err(OwnerError::OutOfRange { .. })), "{text}");
        }
    }
}
