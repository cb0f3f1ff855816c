//! The local window: the HTTP endpoint with metrics and health. It reads the state and changes nothing.
