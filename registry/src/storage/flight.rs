//! Equal questions at the same time, asked of the store once.
//!
//! An answer is only shared by those who asked before the question was sent: who comes while it is under way waits for the
//! next one. So nobody hears an older state than the one that was there when they asked, whatever was acknowledged to them
//! before. That a question failed is no state: all who wait hear of it, also those who came while it was under way. Each
//! would ask in turn otherwise, and while a store is silent the last of many would wait for all before it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, OnceCell};

/// The question, and who waits for its next answer.
#[derive(Debug)]
struct Place<T, E> {
    /// Whose question is under way holds it.
    turn: Arc<Turn<()>>,
    /// Filled by the next question; whoever holds a copy asked before it was sent.
    next: Arc<OnceCell<Result<T, E>>>,
    /// How many have a part in this place.
    askers: usize,
}

/// Questions by what they ask.
#[derive(Debug)]
pub(super) struct Flights<T, E>(Mutex<HashMap<String, Place<T, E>>>);

impl<T, E> Default for Flights<T, E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Leaves its place when it is dropped, also in the middle of waiting.
struct Asker<'a, T, E> {
    flights: &'a Flights<T, E>,
    question: &'a str,
}

impl<T, E> Drop for Asker<'_, T, E> {
    fn drop(&mut self) {
        let mut places = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(self.question) {
            place.askers -= 1;
            if place.askers == 0 {
                places.remove(self.question);
            }
        }
    }
}

impl<T: Clone, E: Clone> Flights<T, E> {
    /// The answer to `question`, which `ask` fetches.
    pub(super) async fn ask<F: Future<Output = Result<T, E>>>(
        &self,
        question: &str,
        ask: impl FnOnce() -> F,
    ) -> Result<T, E> {
        let (turn, answer) = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match places.get_mut(question) {
                Some(place) => {
                    place.askers += 1;
                    (place.turn.clone(), place.next.clone())
                }
                None => {
                    let place = Place { turn: Arc::default(), next: Arc::new(OnceCell::new()), askers: 1 };
                    let own = (place.turn.clone(), place.next.clone());
                    places.insert(question.to_owned(), place);
                    own
                }
            }
        };
        let _asker = Asker { flights: self, question };
        let _turn = turn.lock().await;
        if let Some(answer) = answer.get() {
            return answer.clone();
        }
        {
            // From here on the question is under way: who comes now waits for the next.
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = places.get_mut(question)
                && Arc::ptr_eq(&place.next, &answer)
            {
                place.next = Arc::new(OnceCell::new());
            }
        }
        let told = ask().await;
        if told.is_err() {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = places.get_mut(question) {
                // Who came meanwhile hears it; who comes from here on asks anew.
                let waiting = std::mem::take(&mut place.next);
                let _ = waiting.set(told.clone());
            }
        }
        // Only who has the turn fills it, and nobody had.
        let _ = answer.set(told.clone());
        told
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    /// A store whose answers take their time and say what was true when the question arrived.
    async fn question(state: &AtomicU32, asked: &AtomicU32) -> Result<u32, ()> {
        asked.fetch_add(1, Ordering::SeqCst);
        let now = state.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(now)
    }

    #[tokio::test]
    async fn who_asks_while_a_question_is_under_way_hears_a_later_state() {
        let (flights, state, asked) = (Flights::default(), AtomicU32::new(1), AtomicU32::new(0));
        let ask = || flights.ask("tag", || question(&state, &asked));
        let late = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            // The first question has arrived and is not answered; a push is acknowledged now.
            state.store(2, Ordering::SeqCst);
            tokio::join!(ask(), ask(), ask())
        };
        let (first, late) = tokio::join!(ask(), late);
        assert_eq!((first, late), (Ok(1), (Ok(2), Ok(2), Ok(2))));
        assert_eq!(asked.load(Ordering::SeqCst), 2, "the three that came later share one question");
        assert!(flights.0.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_store_is_silent_nobody_waits_for_more_than_one_question() {
        let (flights, asked) = (Flights::default(), AtomicU32::new(0));
        let ask = async |after: u64| {
            tokio::time::sleep(Duration::from_secs(after)).await;
            let silent = || async {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(20)).await;
                Err::<u32, &str>("silent")
            };
            let start = tokio::time::Instant::now();
            (flights.ask("x", silent).await, start.elapsed().as_secs())
        };
        let told = tokio::join!(ask(0), ask(1), ask(5), ask(19), ask(21), ask(30));
        assert_eq!([told.0, told.1, told.2, told.3], [20, 19, 15, 1].map(|waited| (Err("silent"), waited)));
        // Who came after it had failed asked anew.
        assert_eq!((told.4, told.5), ((Err("silent"), 20), (Err("silent"), 11)));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert!(flights.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_asker_that_goes_away_leaves_the_others_their_answer() {
        let (flights, state, asked) = (Flights::default(), AtomicU32::new(1), AtomicU32::new(0));
        let hasty = async {
            tokio::time::timeout(Duration::from_millis(3), flights.ask("x", || question(&state, &asked))).await.is_err()
        };
        let patient = flights.ask("x", || question(&state, &asked));
        let (gone, told) = tokio::join!(hasty, patient);
        assert!(gone);
        assert_eq!((told, asked.load(Ordering::SeqCst)), (Ok(1), 2));
        assert!(flights.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn different_questions_do_not_wait_for_each_other() {
        let flights = Flights::default();
        // Each is answered only once the other is under way.
        let both = tokio::sync::Barrier::new(2);
        let ask = |name: &'static str| flights.ask(name, || async { Ok::<_, ()>(both.wait().await.is_leader()) });
        let (a, b) = tokio::join!(ask("a"), ask("b"));
        assert_ne!(a, b);
    }
}
