// A franz-go client for the tests: `interop produce|consume|consume-group` with records as JSON lines, one record a line:
// {"key":"k"|null,"value":"v"|null,"headers":[["name","value"],…]}. Produce reads them, the others print them. And a client of
// Sarama, the library of infrastructure-as-code tools: `interop apply`, see plan.go.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	saslscram "github.com/twmb/franz-go/pkg/sasl/scram"
)

type record struct {
	Key     *string     `json:"key"`
	Value   *string     `json:"value"`
	Headers [][2]string `json:"headers"`
}

// How long a client that has to get in tries to.
const refusedAfter = 5 * time.Second

// The longest line of input: far above what the tests send.
const lineBytesMax = 1 << 20

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: interop produce|consume|consume-group|apply -bootstrap … -topic …"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	bootstrap := flags.String("bootstrap", "", "host:port,…")
	topic := flags.String("topic", "", "the topic; partition 0 is used")
	group := flags.String("group", "", "the group of consume-group")
	count := flags.Int("count", 0, "how many records to read")
	compression := flags.String("compression", "none", "none, gzip, snappy, lz4 or zstd")
	idempotent := flags.Bool("idempotent", false, "produce as an idempotent producer")
	protocol := flags.String("protocol", "classic", "the group protocol: classic or consumer")
	seconds := flags.Int("seconds", 40, "give up after this long")
	ca := flags.String("ca", "", "certificates of authorities, PEM: speaks TLS")
	certificate := flags.String("certificate", "", "chain and key to show, PEM")
	mechanism := flags.String("mechanism", "", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
	user := flags.String("user", "", "who signs in")
	password := flags.String("password", "", "the password, or of OAUTHBEARER the token")
	_ = flags.Parse(os.Args[2:])

	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*seconds)*time.Second)
	defer cancel()
	options := []kgo.Opt{kgo.SeedBrokers(strings.Split(*bootstrap, ",")...)}
	secured, err := security(*ca, *certificate, *mechanism, *user, *password)
	if err != nil {
		fail(err)
	}
	options = append(options, secured...)
	switch os.Args[1] {
	case "produce":
		err = produce(ctx, options, *topic, *compression, *idempotent)
	case "consume":
		first := map[string]map[int32]kgo.Offset{*topic: {0: kgo.NewOffset().AtStart()}}
		err = consume(ctx, append(options, kgo.ConsumePartitions(first)), *count, false)
	case "consume-group":
		options = append(options, kgo.ConsumerGroup(*group), kgo.ConsumeTopics(*topic), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if *protocol == "consumer" {
			// the only way that this version has to ask for the protocol of KIP-848
			options = append(options, kgo.WithContext(context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true)))
		}
		err = consume(ctx, options, *count, true)
	case "apply":
		err = apply(*bootstrap)
	default:
		err = fmt.Errorf("no command %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func security(ca, certificate, mechanism, user, password string) ([]kgo.Opt, error) {
	if ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(pem)
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, certificate)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	// what is refused at the door would be tried again for as long as there is time
	options := []kgo.Opt{kgo.DialTLSConfig(config), kgo.RecordDeliveryTimeout(refusedAfter), kgo.RetryTimeout(refusedAfter)}
	switch mechanism {
	case "PLAIN":
		options = append(options, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
	case "SCRAM-SHA-256":
		options = append(options, kgo.SASL(saslscram.Auth{User: user, Pass: password}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		options = append(options, kgo.SASL(saslscram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
	case "OAUTHBEARER":
		options = append(options, kgo.SASL(oauth.Auth{Token: password}.AsMechanism()))
	}
	return options, nil
}

func codec(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "none":
		return kgo.NoCompression(), nil
	case "gzip":
		return kgo.GzipCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.CompressionCodec{}, fmt.Errorf("no compression %q", name)
}

func produce(ctx context.Context, options []kgo.Opt, topic, compression string, idempotent bool) error {
	chosen, err := codec(compression)
	if err != nil {
		return err
	}
	options = append(options, kgo.RequiredAcks(kgo.AllISRAcks()))
	if !idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(append(options, kgo.ProducerBatchCompression(chosen),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineBytesMax)
	var records []*kgo.Record
	for lines.Scan() {
		var in record
		if err := json.Unmarshal(lines.Bytes(), &in); err != nil {
			return err
		}
		out := &kgo.Record{Topic: topic, Partition: 0, Key: bytesOf(in.Key), Value: bytesOf(in.Value)}
		for _, header := range in.Headers {
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: header[0], Value: []byte(header[1])})
		}
		records = append(records, out)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

func consume(ctx context.Context, options []kgo.Opt, count int, commit bool) error {
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	var last *kgo.Record
	for read := 0; read < count; {
		fetches := client.PollRecords(ctx, count-read)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("after %d of %d records: %w", read, count, err)
		}
		for _, in := range fetches.Records() {
			given := record{Key: textOf(in.Key), Value: textOf(in.Value), Headers: [][2]string{}}
			for _, header := range in.Headers {
				given.Headers = append(given.Headers, [2]string{header.Key, string(header.Value)})
			}
			if err := out.Encode(given); err != nil {
				return err
			}
			last = in
			read++
		}
	}
	if commit {
		return client.CommitRecords(ctx, last)
	}
	return nil
}

func bytesOf(text *string) []byte {
	if text == nil {
		return nil
	}
	return []byte(*text)
}

func textOf(bytes []byte) *string {
	if bytes == nil {
		return nil
	}
	text := string(bytes)
	return &text
}
