//! What happened during a build (step started, bytes moved, a line of output), and the sink that hears it.
