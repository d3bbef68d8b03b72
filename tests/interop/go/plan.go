package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/IBM/sarama"
)

// What `interop apply` brings about, as an infrastructure-as-code tool does with the same library: it reads what there is, makes a
// plan and carries it out. Only what has the prefix is its own; what of that is not wanted is deleted.
type wanted struct {
	Prefix string                        `json:"prefix"`
	Topics map[string]wantedTopic        `json:"topics"`
	ACLs   []string                      `json:"acls"`   // type|name|pattern|principal|host|operation|permission
	Quotas map[string]map[string]float64 `json:"quotas"` // user, or user/client-id, "" being the default
	Users  map[string]wantedUser         `json:"users"`
}

type wantedTopic struct {
	Partitions int32             `json:"partitions"`
	Replicas   int16             `json:"replicas"`
	Configs    map[string]string `json:"configs"`
}

type wantedUser struct {
	Password   string `json:"password"`
	Iterations int32  `json:"iterations"`
}

// The steps of a plan in their order: what to print, and how to do it.
type plan struct {
	admin sarama.ClusterAdmin
	steps []step
}

type step struct {
	name string
	do   func() error
}

func (p *plan) add(name string, do func() error) {
	p.steps = append(p.steps, step{name, do})
}

// apply reads what is wanted as JSON and prints each step that it took as a line.
func apply(bootstrap string) error {
	var want wanted
	if err := json.NewDecoder(os.Stdin).Decode(&want); err != nil {
		return err
	}
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	admin, err := sarama.NewClusterAdmin(strings.Split(bootstrap, ","), config)
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	p := &plan{admin: admin}
	for _, part := range []func(wanted) error{p.topics, p.acls, p.quotas, p.users} {
		if err := part(want); err != nil {
			return err
		}
	}
	for _, step := range p.steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Println(step.name)
	}
	return nil
}

func sorted[V any](of map[string]V) []string {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (p *plan) topics(want wanted) error {
	there, err := p.admin.ListTopics()
	if err != nil {
		return err
	}
	for _, name := range sorted(want.Topics) {
		topic := want.Topics[name]
		found, exists := there[name]
		if !exists {
			detail := &sarama.TopicDetail{NumPartitions: topic.Partitions, ReplicationFactor: topic.Replicas, ConfigEntries: map[string]*string{}}
			for key, value := range topic.Configs {
				detail.ConfigEntries[key] = &value
			}
			p.add("create topic "+name, func() error { return p.admin.CreateTopic(name, detail, false) })
			continue
		}
		if found.NumPartitions != topic.Partitions {
			p.add(fmt.Sprintf("partitions of %s from %d to %d", name, found.NumPartitions, topic.Partitions), func() error {
				return p.admin.CreatePartitions(name, topic.Partitions, nil, false)
			})
		}
		if err := p.configs(name, topic.Configs); err != nil {
			return err
		}
	}
	for _, name := range sorted(there) {
		if _, stays := want.Topics[name]; !stays && strings.HasPrefix(name, want.Prefix) {
			p.add("delete topic "+name, func() error { return p.admin.DeleteTopic(name) })
		}
	}
	return nil
}

func (p *plan) configs(topic string, want map[string]string) error {
	entries, err := p.admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	if err != nil {
		return err
	}
	there := map[string]string{}
	for _, entry := range entries {
		if entry.Source == sarama.SourceTopic {
			there[entry.Name] = entry.Value
		}
	}
	changes := map[string]sarama.IncrementalAlterConfigsEntry{}
	for key, value := range want {
		if found, exists := there[key]; !exists || found != value {
			changes[key] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}
		}
	}
	for key := range there {
		if _, stays := want[key]; !stays {
			changes[key] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationDelete}
		}
	}
	if len(changes) > 0 {
		p.add("configs of "+topic+": "+strings.Join(sorted(changes), ","), func() error {
			return p.admin.IncrementalAlterConfig(sarama.TopicResource, topic, changes, false)
		})
	}
	return nil
}

func (p *plan) acls(want wanted) error {
	any := sarama.AclFilter{
		ResourceType: sarama.AclResourceAny, ResourcePatternTypeFilter: sarama.AclPatternAny,
		Operation: sarama.AclOperationAny, PermissionType: sarama.AclPermissionAny,
	}
	listed, err := p.admin.ListAcls(any)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, resource := range listed {
		for _, acl := range resource.Acls {
			name := strings.Join([]string{
				resource.ResourceType.String(), resource.ResourceName, resource.ResourcePatternType.String(),
				acl.Principal, acl.Host, acl.Operation.String(), acl.PermissionType.String(),
			}, "|")
			if strings.HasPrefix(acl.Principal, "User:"+want.Prefix) {
				there[name] = true
			}
		}
	}
	for _, name := range want.ACLs {
		if there[name] {
			delete(there, name)
			continue
		}
		resource, acl, err := aclOf(name)
		if err != nil {
			return err
		}
		p.add("create acl "+name, func() error {
			return p.admin.CreateACLs([]*sarama.ResourceAcls{{Resource: resource, Acls: []*sarama.Acl{&acl}}})
		})
	}
	for _, name := range sorted(there) {
		resource, acl, err := aclOf(name)
		if err != nil {
			return err
		}
		filter := sarama.AclFilter{
			ResourceType: resource.ResourceType, ResourceName: &resource.ResourceName, ResourcePatternTypeFilter: resource.ResourcePatternType,
			Principal: &acl.Principal, Host: &acl.Host, Operation: acl.Operation, PermissionType: acl.PermissionType,
		}
		p.add("delete acl "+name, func() error {
			matched, err := p.admin.DeleteACL(filter, false)
			if err == nil && len(matched) != 1 {
				err = fmt.Errorf("%d rules matched", len(matched))
			}
			return err
		})
	}
	return nil
}

func aclOf(name string) (resource sarama.Resource, acl sarama.Acl, err error) {
	part := strings.Split(name, "|")
	resource.ResourceName, acl.Principal, acl.Host = part[1], part[3], part[4]
	for _, parse := range []error{
		resource.ResourceType.UnmarshalText([]byte(part[0])), resource.ResourcePatternType.UnmarshalText([]byte(part[2])),
		acl.Operation.UnmarshalText([]byte(part[5])), acl.PermissionType.UnmarshalText([]byte(part[6])),
	} {
		if parse != nil {
			err = parse
		}
	}
	return resource, acl, err
}

func (p *plan) quotas(want wanted) error {
	listed, err := p.admin.DescribeClientQuotas(nil, false)
	if err != nil {
		return err
	}
	there := map[string]map[string]float64{}
	for _, entry := range listed {
		user, client, both := "", "", false
		for _, component := range entry.Entity {
			switch component.EntityType {
			case sarama.QuotaEntityUser:
				user = component.Name
			case sarama.QuotaEntityClientID:
				client, both = component.Name, true
			}
		}
		name := user
		if both {
			name += "/" + client
		}
		if strings.HasPrefix(name, want.Prefix) {
			there[name] = entry.Values
		}
	}
	names := map[string]bool{}
	for name := range there {
		names[name] = true
	}
	for name := range want.Quotas {
		names[name] = true
	}
	for _, name := range sorted(names) {
		keys := map[string]bool{}
		for key := range there[name] {
			keys[key] = true
		}
		for key := range want.Quotas[name] {
			keys[key] = true
		}
		for _, key := range sorted(keys) {
			value, stays := want.Quotas[name][key]
			if found, exists := there[name][key]; exists && stays && found == value {
				continue
			}
			operation := sarama.ClientQuotasOp{Key: key, Value: value, Remove: !stays}
			p.add(fmt.Sprintf("quota of %s: %s=%v remove=%v", name, key, value, !stays), func() error {
				return p.admin.AlterClientQuotas(entityOf(name), operation, false)
			})
		}
	}
	return nil
}

func entityOf(name string) []sarama.QuotaEntityComponent {
	user, client, both := strings.Cut(name, "/")
	entity := []sarama.QuotaEntityComponent{{EntityType: sarama.QuotaEntityUser, Name: user}}
	if both {
		second := sarama.QuotaEntityComponent{EntityType: sarama.QuotaEntityClientID, Name: client}
		if client == "" {
			second.MatchType = sarama.QuotaMatchDefault
		}
		entity = append(entity, second)
	}
	return entity
}

func (p *plan) users(want wanted) error {
	listed, err := p.admin.DescribeUserScramCredentials(nil)
	if err != nil {
		return err
	}
	there := map[string]int32{}
	for _, user := range listed {
		if user.ErrorCode != sarama.ErrNoError {
			return user.ErrorCode
		}
		for _, credential := range user.CredentialInfos {
			if credential.Mechanism == sarama.SCRAM_MECHANISM_SHA_512 && strings.HasPrefix(user.User, want.Prefix) {
				there[user.User] = credential.Iterations
			}
		}
	}
	for _, name := range sorted(want.Users) {
		user := want.Users[name]
		if there[name] == user.Iterations {
			continue
		}
		upsert := sarama.AlterUserScramCredentialsUpsert{
			Name: name, Mechanism: sarama.SCRAM_MECHANISM_SHA_512, Iterations: user.Iterations,
			Salt: []byte("salt of " + name), Password: []byte(user.Password),
		}
		p.add(fmt.Sprintf("user %s: %d iterations", name, user.Iterations), func() error {
			return scram(p.admin.UpsertUserScramCredentials([]sarama.AlterUserScramCredentialsUpsert{upsert}))
		})
	}
	for _, name := range sorted(there) {
		if _, stays := want.Users[name]; !stays {
			gone := sarama.AlterUserScramCredentialsDelete{Name: name, Mechanism: sarama.SCRAM_MECHANISM_SHA_512}
			p.add("delete user "+name, func() error {
				return scram(p.admin.DeleteUserScramCredentials([]sarama.AlterUserScramCredentialsDelete{gone}))
			})
		}
	}
	return nil
}

func scram(results []*sarama.AlterUserScramCredentialsResult, err error) error {
	for _, result := range results {
		if result.ErrorCode != sarama.ErrNoError {
			return result.ErrorCode
		}
	}
	return err
}
