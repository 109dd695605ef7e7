//! Which run of the machine this is: what was not synced yet is whole as long as it goes on.

use std::sync::OnceLock;

/// The kernel's random name for its own run; `None` where it does not tell.
pub(super) fn this_boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let id = text.trim();
        (!id.is_empty()).then(|| id.to_owned())
    };
    BOOT.get_or_init(read).as_deref()
}
