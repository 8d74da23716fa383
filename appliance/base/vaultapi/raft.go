package vaultapi

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
)

// Raft is the storage's view of its nodes.
type Raft struct {
	Index uint64     `json:"index"`
	Nodes []RaftNode `json:"nodes"`
}

// RaftNode is one of them.
type RaftNode struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Leader  bool   `json:"leader"`
	Voter   bool   `json:"voter"`
}

// Raft reads raft's configuration, which needs a token that may.
// https://developer.hashicorp.com/vault/api-docs/system/storage/raft
func (c *Client) Raft(ctx context.Context) (Raft, error) {
	var answer struct {
		Config struct {
			Index   json.Number `json:"index"`
			Servers []struct {
				ID      string `json:"node_id"`
				Address string `json:"address"`
				Leader  bool   `json:"leader"`
				Voter   bool   `json:"voter"`
			} `json:"servers"`
		} `json:"config"`
	}
	if err := c.ReadInto(ctx, "sys/storage/raft/configuration", nil, &answer); err != nil {
		return Raft{}, err
	}
	var r Raft
	if answer.Config.Index != "" {
		n, err := strconv.ParseUint(answer.Config.Index.String(), 10, 64)
		if err != nil {
			return Raft{}, fmt.Errorf("raft configuration: index %q", answer.Config.Index)
		}
		r.Index = n
	}
	for _, s := range answer.Config.Servers {
		r.Nodes = append(r.Nodes, RaftNode{s.ID, s.Address, s.Leader, s.Voter})
	}
	return r, nil
}
