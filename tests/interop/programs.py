"""Long-lived programs of Kafka's own or of ours in Java, that run while a test goes on."""
import os
import pathlib
import signal
import subprocess
import time

from clients import java

# Longest wait for a program to say something: two cores start a Java program in up to ten seconds.
SAY_SECONDS_MAX = 90


class Program:
    """A Java program in the background; its output goes to a file. Use with `with`: it is killed at the end."""

    def __init__(self, output, class_name, *arguments, options=java.OPTIONS):
        self.output = pathlib.Path(output)
        environment = {**os.environ, "JAVA_OPTS": options, "LOG_LEVEL": "WARN", "OTTLA_KAFKA_CLASSES": str(java.CLASSES)}
        self.command = [str(java.KAFKA), class_name, *map(str, arguments)]
        self.environment = environment
        self.process = None
        self.start()

    def start(self):
        # what an earlier run of it said is no news
        self.begin = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=out, env=self.environment)

    def said(self):
        """What this run of it wrote so far."""
        with self.output.open("rb") as file:
            file.seek(self.begin)
            return file.read().decode(errors="replace")

    def await_said(self, text, seconds=SAY_SECONDS_MAX):
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, f"{self.command[1]} ended with {self.process.returncode}:\n{self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"{self.command[1]} did not say {text!r} in {seconds} s:\n{self.said()[-3000:]}"
            time.sleep(0.05)

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=40):
        """SIGTERM, and its end."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


def eventually(seconds, what, check):
    """Calls `check` until it gives something true, which is returned; its AssertionErrors count as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        last = None
        try:
            if found := check():
                return found
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}") from last
        time.sleep(0.1)
