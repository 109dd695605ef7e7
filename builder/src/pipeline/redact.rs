//! What is said of a build, without its secrets: whatever a command prints, a file is named or an instruction holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Event, Events, Sink, StepId, Stream};
use crate::secrets::{Flow, Redactor, Secrets};

/// A sink that hears everything without these secrets.
pub(super) fn without(secrets: &Secrets, events: Events) -> Events {
    let redactor = Redactor::new(secrets);
    if redactor.is_empty() {
        return events;
    }
    Arc::new(Redacting { inner: events, redactor, flows: Mutex::default() })
}

struct Redacting {
    inner: Events,
    redactor: Redactor,
    /// The two outputs of each step that runs.
    flows: Mutex<HashMap<StepId, [Flow; 2]>>,
}

impl Sink for Redacting {
    fn hear(&self, event: Event) {
        // Held while the other sink hears it: what was kept back comes before what follows it.
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |text: String| self.redactor.text(text);
        let event = match event {
            Event::Output { step, stream, bytes } => {
                let flow = &mut flows.entry(step).or_insert_with(|| [self.redactor.flow(), self.redactor.flow()])
                    [usize::from(stream == Stream::Stderr)];
                let bytes = flow.push(bytes);
                if bytes.is_empty() {
                    return;
                }
                Event::Output { step, stream, bytes }
            }
            Event::Finished { step } | Event::Stopped { step } => {
                self.end(step, &mut flows);
                event
            }
            Event::Failed { step, error } => {
                self.end(step, &mut flows);
                Event::Failed { step, error: text(error) }
            }
            Event::Dockerfile { name, path, text: file } => Event::Dockerfile { name, path, text: text(file) },
            Event::Planned { step, name, mut origin, needs } => {
                origin.instruction = text(origin.instruction);
                Event::Planned { step, name: text(name), origin, needs }
            }
            Event::Started { step, name } => Event::Started { step, name: text(name) },
            Event::Moved { step, what, done_bytes, total_bytes } => {
                Event::Moved { step, what: text(what), done_bytes, total_bytes }
            }
            Event::Warning { text: warning } => Event::Warning { text: text(warning) },
            Event::Check { rule, text: check, hint, detail, url, file, first_line, last_line } => {
                let (check, hint) = (text(check), hint.map(text));
                Event::Check { rule, text: check, hint, detail, url, file, first_line, last_line }
            }
            Event::Refused { text: problem, first_line, last_line } => {
                Event::Refused { text: text(problem), first_line, last_line }
            }
            Event::Note { text: note } => Event::Note { text: text(note) },
            event @ (Event::Waiting { .. } | Event::Cached { .. }) => event,
        };
        self.inner.hear(event);
    }
}

impl Redacting {
    /// Gives out what was kept back of a step's output.
    fn end(&self, step: StepId, flows: &mut HashMap<StepId, [Flow; 2]>) {
        let Some(both) = flows.remove(&step) else { return };
        for (stream, mut flow) in [Stream::Stdout, Stream::Stderr].into_iter().zip(both) {
            let bytes = flow.finish();
            if !bytes.is_empty() {
                self.inner.hear(Event::Output { step, stream, bytes });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Secret;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Sink for Heard {
        fn hear(&self, event: Event) {
            let text = match event {
                Event::Output { step, bytes, .. } => format!("{step} {}", String::from_utf8(bytes).unwrap()),
                Event::Finished { step } => format!("{step} done"),
                Event::Started { step, name } => format!("{step} {name}"),
                _ => return,
            };
            self.0.lock().unwrap().push(text);
        }
    }

    #[test]
    fn output_is_redacted_step_by_step_and_kept_back_no_longer_than_its_step() {
        let heard = Arc::new(Heard::default());
        let secrets = [("a".to_owned(), Secret::of(b"tok_0123456789"))].into_iter().collect();
        let events = without(&secrets, heard.clone());
        let output = |step, stream, text: &str| {
            events.hear(Event::Output { step: StepId(step), stream, bytes: text.as_bytes().to_vec() });
        };
        events.hear(Event::Started { step: StepId(1), name: "RUN echo tok_0123456789".to_owned() });
        output(1, Stream::Stdout, "a tok_01234");
        output(2, Stream::Stdout, "56789\n");
        output(1, Stream::Stderr, "56789\n");
        output(1, Stream::Stdout, "56789\n");
        output(1, Stream::Stdout, "b tok_01");
        events.hear(Event::Finished { step: StepId(1) });
        let heard = heard.0.lock().unwrap().clone();
        assert_eq!(
            heard,
            ["#1 RUN echo ***", "#1 a ", "#2 56789\n", "#1 56789\n", "#1 ***\n", "#1 b ", "#1 tok_01", "#1 done"]
        );
        let deaf: Events = Arc::new(crate::event::Deaf);
        assert!(Arc::ptr_eq(&without(&Secrets::default(), deaf.clone()), &deaf));
    }
}
