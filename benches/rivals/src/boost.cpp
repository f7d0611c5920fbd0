// Boost.Interprocess's message_queue, as functions without exceptions.
#include <boost/interprocess/ipc/message_queue.hpp>

using boost::interprocess::message_queue;

extern "C" {

message_queue *boost_queue_create(const char *name, size_t capacity, size_t longest) {
    try {
        return new message_queue(boost::interprocess::create_only, name, capacity, longest);
    } catch (...) {
        return nullptr;
    }
}

message_queue *boost_queue_open(const char *name) {
    try {
        return new message_queue(boost::interprocess::open_only, name);
    } catch (...) {
        return nullptr;
    }
}

bool boost_queue_send(message_queue *queue, const void *message, size_t length) {
    try {
        queue->send(message, length, 0);
        return true;
    } catch (...) {
        return false;
    }
}

// The message's length, or SIZE_MAX.
size_t boost_queue_receive(message_queue *queue, void *buffer, size_t length) {
    try {
        message_queue::size_type received;
        unsigned int priority;
        queue->receive(buffer, length, received, priority);
        return received;
    } catch (...) {
        return SIZE_MAX;
    }
}

bool boost_queue_remove(const char *name) { return message_queue::remove(name); }

void boost_queue_close(message_queue *queue) { delete queue; }
}
