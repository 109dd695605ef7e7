//! Steps of the protocol that a test leaves out, to see that the model notices. Outside of tests nothing is ever left out.

/// A step to leave out, or to do in the wrong order. Each stands where the step is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mutation {
    /// What a reference names is not confirmed.
    NothingSeen,
    /// The blobs of a manifest are not confirmed.
    BlobsNotSeen,
    /// Whether it is there is asked before the marks.
    ThereBeforeMarks,
    /// A run writes no mark.
    NoMark,
    /// A run looks for references before it marks.
    LookBeforeMark,
    /// A run removes its mark before it deletes.
    UnmarkBeforeDelete,
    /// A tag's entry is published without confirming its copy.
    TagNotConfirmed,
    /// A tag's entry is visible before its copy is confirmed.
    PublishFirst,
    /// A tag ends at the order after the entry.
    EndAtNextOrder,
    /// A tag ends with every entry of the order.
    EndWholeOrder,
    /// Data is linked without reading the marks.
    LinkMarkedData,
    /// A blob is relied on by a link that appeared after the marks were read.
    RelyOnNewLink,
    /// Children are not confirmed.
    ChildrenNotConfirmed,
    /// A copy goes although an index names it.
    ParentsIgnored,
    /// The copy itself is not confirmed before the answer.
    CopyNotConfirmed,
    /// A push by digest takes an existing copy.
    DigestTakesCopy,
    /// A dead run's mark goes while its targets live.
    MarkGoesEarly,
    /// An upload is continued by whoever saw no claim before its own.
    ListBeforeClaim,
    /// An immutable tag's rivals are looked for before its claim.
    RivalsBeforeClaim,
    /// A refused claim is not voided.
    ClaimNotVoided,
    /// Undo does not confirm.
    UndoNotConfirmed,
    /// An entry whose copy is gone hides the older ones.
    DeadEntryHides,
    /// The copy is not looked at again after publishing.
    NoLookAfterPublishing,
    /// DELETE of a manifest removes the copies before it ends their tags.
    CopiesBeforeEnds,
    /// DELETE of a manifest does not look at the tags again.
    TagsOnce,
    /// A cancelled upload leaves no word of it. This and what follows is the service's, which the model does not know.
    CancelForgotten,
    /// Who lost a claim to an upload leaves it.
    ClaimKept,
    /// A chunk is taken wherever it says that it belongs.
    PlaceUnchecked,
    /// An upload becomes a blob of whatever digest it declares.
    DigestUnchecked,
    /// Where an upload is, is what its Location says.
    StatusOfLocation,
}

/// Whether the step is left out.
#[cfg(not(test))]
pub(crate) const fn mutated(_: Mutation) -> bool {
    false
}

#[cfg(test)]
pub(crate) use tests::mutated;
#[cfg(test)]
pub(crate) use tests::with;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static CURRENT: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    pub(crate) fn mutated(mutation: Mutation) -> bool {
        CURRENT.get() == Some(mutation)
    }

    /// Leaves a step out of everything that `f` does on this thread.
    pub(crate) fn with<T>(mutation: Option<Mutation>, f: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(mutation);
        let done = f();
        CURRENT.set(before);
        done
    }
}
