"""Starts Ottla or Apache Kafka on this machine, one to three nodes, and tells what their processes cost."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
KAFKA = HERE.parent / "kafka" / "kafka"
TICKS = os.sysconf("SC_CLK_TCK")
CLUSTER_ID = "b3R0bGFiZW5jaG1hcmtzIQ"
# What Kafka's own start script passes to Java.
KAFKA_JAVA_OPTIONS = (
    "-Xms1G -Xmx1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
    "-XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true"
)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    """Nodes of one product; use with `with`."""

    def __init__(self, product, nodes, binary, security="plain", **properties):
        self.product, self.binary, self.count = product, binary, nodes
        self.properties, self.security = properties, security
        self.processes = []
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"bench-{product}-"))
        ports = free_ports(3 * nodes)
        self.kafka, self.control, self.http = ports[:nodes], ports[nodes : 2 * nodes], ports[2 * nodes :]

    @property
    def client(self):
        """What librdkafka needs to get in."""
        if self.security != "tls":
            return {}
        return {"security.protocol": "ssl", "ssl.ca.location": str(self.directory / "server.pem")}

    def _security(self):
        """The nodes' side of it."""
        if self.security == "tls":
            store = self.directory / "server.pem"
            if not store.exists():
                key, chain = self.directory / "key.pem", self.directory / "chain.pem"
                subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench",
                                "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", chain],
                               check=True, stderr=subprocess.DEVNULL)
                store.write_text(key.read_text() + chain.read_text())
            return {"listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:SSL",
                    "ssl.keystore.type": "PEM", "ssl.keystore.location": store,
                    "ssl.truststore.type": "PEM", "ssl.truststore.location": store}
        if self.security == "rules":
            return {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                    "allow.everyone.if.no.acl.found": "true"}
        return {}

    @property
    def bootstrap(self):
        return ",".join(f"127.0.0.1:{port}" for port in self.kafka)

    def __enter__(self):
        for node in range(self.count):
            self._write(node)
        if self.product == "kafka":
            for node in range(self.count):
                self._java(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._file(node))], "-Xmx256m").wait()
        self.start()
        return self

    def start(self):
        """Starts every node; the seconds until all ports answer and a topic could be listed are `start_seconds`."""
        began = time.monotonic()
        self.processes = [self._process(node) for node in range(self.count)]
        for port in self.kafka:
            self._await_port(port)
        self.start_seconds = time.monotonic() - began

    def spawn(self, node):
        """Starts one node again, the first being 0, and waits for its port."""
        self.processes[node] = self._process(node)
        self._await_port(self.kafka[node])

    def end(self, node, how):
        """Ends one node by a signal."""
        self.processes[node].send_signal(how)
        self.processes[node].wait()

    def kill(self, node):
        self.end(node, signal.SIGKILL)

    def _process(self, node):
        if self.product == "kafka":
            return self._java(["kafka.Kafka", str(self._file(node))], KAFKA_JAVA_OPTIONS)
        log = (self.directory / "server.log").open("ab")
        return subprocess.Popen([self.binary, "server", "--config", str(self._file(node))], stdout=log, stderr=log)

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self, how=signal.SIGTERM):
        for process in self.processes:
            process.send_signal(how)
        for process in self.processes:
            process.wait()
        self.processes = []

    def cpu_seconds(self):
        """User and system time of all nodes so far."""
        total = 0
        for process in self.processes:
            fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident_mib(self):
        """Resident memory of all nodes now."""
        total = 0
        for process in self.processes:
            for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total / 1024

    def _file(self, node):
        return self.directory / f"{node + 1}.properties"

    def _write(self, node):
        listeners = f"PLAINTEXT://127.0.0.1:{self.kafka[node]},CONTROLLER://127.0.0.1:{self.control[node]}"
        properties = {
            "process.roles": "broker,controller",
            "node.id": node + 1,
            "controller.quorum.voters": ",".join(f"{i + 1}@127.0.0.1:{port}" for i, port in enumerate(self.control)),
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.kafka[node]}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.directory / f"data-{node + 1}",
            "offsets.topic.replication.factor": self.count,
            "group.initial.rebalance.delay.ms": 0,
            **self._security(),
            **self.properties,
        }
        if self.product == "ottla":
            properties["ottla.http.listener"] = f"127.0.0.1:{self.http[node]}"
        self._file(node).write_text("".join(f"{name}={value}\n" for name, value in properties.items()))

    def _java(self, arguments, options):
        log = (self.directory / "server.log").open("ab")
        environment = {**os.environ, "JAVA_OPTS": options, "LOG_LEVEL": "WARN"}
        return subprocess.Popen([str(KAFKA), *arguments], stdout=log, stderr=log, env=environment)

    def _await_port(self, port, limit=120):
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            for process in self.processes:
                if process.poll() is not None:
                    tail = (self.directory / "server.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"a node of {self.product} ended with {process.returncode}:\n{tail}")
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return
            except OSError:
                time.sleep(0.002)
        raise RuntimeError(f"{self.product}: nothing listens on {port}")
