//! Kafka's topic id, which changes when a topic is deleted and made anew under its name. rdkafka has no safe call for it.
#![expect(unsafe_code, reason = "DescribeTopics exists in librdkafka but not in rdkafka's safe interface")]

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Calls a destructor of librdkafka when it goes out of scope.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// Takes a pointer that librdkafka has given to the caller, or fails on null.
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, ClientError> {
        if pointer.is_null() { Err(ClientError::AdminOp(Code::Fail)) } else { Ok(Self(pointer, destroy)) }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the constructor that belongs to this destructor, and is dropped once.
        unsafe { (self.1)(self.0) }
    }
}

/// The id of a topic in base64, as Kafka's own tools print it.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<String, ClientError> {
    let name = CString::new(topic)?;
    let mut names = [name.as_ptr()];
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: every pointer below is checked for null and outlives its use: `name` the call that copies it, the client the
    // queue and the event, the event all that is read from it. librdkafka's functions may be called from any thread.
    unsafe {
        let native = client.native_ptr();
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Owned::new(topics, sys::rd_kafka_TopicCollection_destroy)?;
        let queue = Owned::new(sys::rd_kafka_queue_new(native), sys::rd_kafka_queue_destroy)?;
        sys::rd_kafka_DescribeTopics(native, topics.0, ptr::null(), queue.0);
        let event = Owned::new(sys::rd_kafka_queue_poll(queue.0, timeout_ms), sys::rd_kafka_event_destroy)
            .map_err(|_| ClientError::AdminOp(Code::OperationTimedOut))?;
        check(sys::rd_kafka_event_error(event.0))?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(ClientError::AdminOp(Code::Fail));
        }
        let mut count = 0;
        let described = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if described.is_null() || count == 0 {
            return Err(ClientError::AdminOp(Code::UnknownTopicOrPartition));
        }
        let error = sys::rd_kafka_TopicDescription_error(*described);
        if !error.is_null() {
            check(sys::rd_kafka_error_code(error))?;
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*described);
        let text = if id.is_null() { ptr::null() } else { sys::rd_kafka_Uuid_base64str(id) };
        if text.is_null() {
            return Err(ClientError::AdminOp(Code::Fail));
        }
        Ok(CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

fn check(code: sys::rd_kafka_resp_err_t) -> Result<(), ClientError> {
    match Code::from(code) {
        Code::NoError => Ok(()),
        code => Err(ClientError::AdminOp(code)),
    }
}
